"""The settings as a flat list: dotted name, type, default and help text of each.

Any thread. The help text is the string under the field in `settings.py`, read from its source, so that a setting
is described in one place only.
"""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any

from esperd.config import settings as settings_module
from esperd.config.constraints import CONSTRAINTS
from esperd.config.settings import Settings


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One setting as the documentation shows it."""

    section: str
    name: str
    type_name: str
    """`str`, `int`, `float`, `bool`, `list of str` or `table`."""
    default: object
    help: str
    allowed: str
    """What the value must be beyond its type, empty when any value will do."""

    @property
    def dotted_name(self) -> str:
        """`section.name`."""
        return f"{self.section}.{self.name}"


_TYPE_NAMES = {str: "str", int: "int", float: "float", bool: "bool", tuple: "list of str", dict: "table"}


def section_types() -> Mapping[str, Any]:
    """The dataclass of every section, by the section's name."""
    defaults = Settings()
    return {section.name: type(getattr(defaults, section.name)) for section in fields(Settings)}


@cache
def describe_settings() -> tuple[SettingDescription, ...]:
    """Every setting, in the order of `settings.py`."""
    documents = _field_documents()
    described = []
    for section, section_type in section_types().items():
        for item in fields(section_type):
            default = item.default if item.default is not MISSING else {}
            constraint = CONSTRAINTS.get(f"{section}.{item.name}")
            described.append(
                SettingDescription(
                    section,
                    item.name,
                    _TYPE_NAMES[type(default)],
                    default,
                    documents[section_type.__name__, item.name],
                    constraint.text if constraint else "",
                )
            )
    return tuple(described)


@cache
def settings_by_section() -> Mapping[str, Mapping[str, SettingDescription]]:
    """The same, by section and name."""
    table: dict[str, dict[str, SettingDescription]] = {section: {} for section in section_types()}
    for description in describe_settings():
        table[description.section][description.name] = description
    return table


def _field_documents() -> dict[tuple[str, str], str]:
    documents = {}
    tree = ast.parse(inspect.getsource(settings_module))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for item, following in zip(node.body, node.body[1:], strict=False):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                documents[node.name, item.target.id] = inspect.cleandoc(str(following.value.value))
            else:
                documents[node.name, item.target.id] = ""
    return documents
