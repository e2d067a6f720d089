"""A configuration that knows where each value comes from: a default, the file, the command line, a later change.

Any thread; pure but for `load_configuration`, which reads the file. What a person or a client is shown of a setting is
made here too, without what looks like a secret.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from esperd.config.fields import describe_settings
from esperd.config.load import parse_settings, read_configuration
from esperd.config.settings import Settings

DEFAULT = "default"
FILE = "file"
COMMAND_LINE = "command line"
RELOAD = "reload"
SET_LOG_LEVEL = "SetLogLevel"

_SECRET_NAME = re.compile(r"secret|passw|token|credential|api_?key", re.IGNORECASE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, and where each comes from."""

    path: Path
    """The file."""
    overrides: tuple[str, ...]
    """What the command line put on top, `section.key=value`."""
    settings: Settings
    origins: Mapping[str, str]
    """The origin of every setting by its dotted name."""

    def value(self, name: str) -> object:
        """The value of one setting, by its dotted name."""
        section, _, key = name.partition(".")
        return getattr(getattr(self.settings, section), key)

    def shown(self, name: str) -> str:
        """The same as TOML, for somebody to see."""
        return as_toml(self.value(name))

    def read_again(self) -> "Configuration":
        """What the file and the same command line say now.

        Raises:
            EsperdError: CONFIG_UNREADABLE, or a ConfigurationInvalid with all errors.
        """
        return load_configuration(self.path, self.overrides)

    def with_values(self, values: Mapping[str, object], origin: str) -> "Configuration":
        """The same with some settings, by dotted name, replaced; they have `origin` from now on."""
        settings = self.settings
        for name, value in values.items():
            section, _, key = name.partition(".")
            settings = replace(settings, **{section: replace(getattr(settings, section), **{key: value})})
        return replace(
            self, settings=settings, origins=MappingProxyType({**self.origins, **dict.fromkeys(values, origin)})
        )


def load_configuration(path: Path, overrides: Sequence[str] = ()) -> Configuration:
    """Read the file at `path`, put `overrides` on top, and note where every value comes from.

    Raises:
        EsperdError: CONFIG_UNREADABLE, or a ConfigurationInvalid with all errors.
    """
    path = path.absolute()
    text = read_configuration(path)
    settings = parse_settings(text, str(path), path.parent, overrides)
    return Configuration(path, tuple(overrides), settings, _origins(text, overrides))


def differing(old: Configuration, new: Configuration) -> tuple[str, ...]:
    """Names of the settings whose values differ, in the order of the manual."""
    names = (one.dotted_name for one in describe_settings())
    return tuple(name for name in names if old.value(name) != new.value(name))


def as_toml(value: object) -> str:
    """A value as TOML; in a table, what looks like a secret by its name is not shown."""
    if isinstance(value, Mapping):
        items = (f"{_key(name)} = {_item(name, item)}" for name, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    # JSON writes strings, numbers and truth values as TOML does, but for DEL and the names of what is not finite.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(text, text)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else as_toml(name)


def _item(name: str, value: object) -> str:
    return '"(redacted)"' if _SECRET_NAME.search(name) else as_toml(value)


def _origins(text: str, overrides: Sequence[str]) -> Mapping[str, str]:
    tables = tomllib.loads(text)
    replaced = {".".join(override.partition("=")[0].strip().split(".")[:2]) for override in overrides}
    origins = {}
    for one in describe_settings():
        if one.dotted_name in replaced:
            origins[one.dotted_name] = COMMAND_LINE
        else:
            origins[one.dotted_name] = FILE if one.name in tables.get(one.section, {}) else DEFAULT
    return MappingProxyType(origins)
