"""Reading a configuration file: TOML in, frozen settings out, or every error in it at once.

Any thread. Nothing is guessed and nothing is clamped: an unknown key, a wrong type, a value out of range or a word
outside its closed set is an error that names file, line, section and key, and what was probably meant.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from esperd.config.constraints import CONSTRAINTS
from esperd.config.fields import SettingDescription, section_types, settings_by_section
from esperd.config.locate import line_of, locate_keys
from esperd.config.settings import Settings
from esperd.leyline.errors import EsperdError

TLS_NAMES = ("tls_certificate", "tls_private_key", "tls_client_ca")
MAX_FILE_BYTES = 1 << 18
"""A configuration is a page or two; a larger file is not one, and would hold up a daemon that reloads for seconds."""
MAX_ERRORS = 100
"""What is no configuration at all is not told of line by line."""


class ConfigurationInvalid(EsperdError):
    """CONFIG_INVALID, with every error of the file as a line of its own."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        lines = list(errors) if len(errors) == 1 else [f"{len(errors)} errors in the configuration:", *errors]
        super().__init__("CONFIG_INVALID", detail="\n  ".join(lines) + "\n")


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read the file at `path` and put `overrides` (`section.key=value`) on top.

    Relative paths in it are relative to its directory.

    Raises:
        EsperdError: CONFIG_UNREADABLE, or a ConfigurationInvalid with all errors.
    """
    return parse_settings(read_configuration(path), str(path), path.absolute().parent, overrides)


def read_configuration(path: Path) -> str:
    """The text of the file at `path`. Raises EsperdError CONFIG_UNREADABLE."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise EsperdError("CONFIG_UNREADABLE", path=path, detail=f"it has more than {MAX_FILE_BYTES} bytes")
        return content.decode("utf-8")
    except OSError as error:
        raise EsperdError("CONFIG_UNREADABLE", path=path, detail=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise EsperdError("CONFIG_UNREADABLE", path=path, detail="it is not UTF-8 text") from error


def parse_settings(text: str, origin: str, directory: Path, overrides: Sequence[str] = ()) -> Settings:
    """The same, from text; `origin` is what errors call it. Raises ConfigurationInvalid."""
    reading = _Reading(origin, locate_keys(text))
    tables = _parse_toml(text, reading)
    for override in overrides:
        _apply_override(tables, override, reading)
    values = {name: _read_section(name, table, reading) for name, table in tables.items() if not reading.has_enough}
    if not reading.errors:
        _check_together(values, reading)
    reading.raise_errors()
    return Settings(
        **{
            section: section_type(**_resolve_paths(section, values.get(section, {}), directory))
            for section, section_type in section_types().items()
        }
    )


@dataclass(slots=True)
class _Reading:
    """The errors of one file, gathered so that all are told at once."""

    origin: str
    places: dict[str, int]
    errors: list[tuple[int, str]] = field(default_factory=list)
    overridden: set[str] = field(default_factory=set)

    def add(self, dotted_name: str, problem: str) -> None:
        if dotted_name in self.overridden or (
            dotted_name not in self.places and any(name.startswith(f"{dotted_name}.") for name in self.overridden)
        ):
            self.errors.append((1 << 30, f"--set {dotted_name}: {problem}"))
            return
        line = line_of(self.places, dotted_name)
        place = f"{self.origin}:{line}" if line else self.origin
        self.errors.append((line or 0, f"{place}: {problem}"))

    @property
    def has_enough(self) -> bool:
        """Whether further errors would tell nobody anything."""
        return len(self.errors) >= MAX_ERRORS

    def raise_errors(self) -> None:
        if not self.errors:
            return
        if self.has_enough:
            self.errors.append((1 << 31, "there may be more; these are the first that were found."))
        raise ConfigurationInvalid([message for _, message in sorted(self.errors, key=lambda item: item[0])])


def _parse_toml(text: str, reading: _Reading) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError besides TOMLDecodeError: a number with more digits than Python converts.
        raise ConfigurationInvalid([f"{reading.origin}: {error or 'too deeply nested'}."]) from error


def _apply_override(tables: dict[str, Any], override: str, reading: _Reading) -> None:
    name, equals, text = override.partition("=")
    *sections, key = name.strip().split(".")
    dotted_name = name.strip()
    reading.overridden.add(dotted_name)
    if not equals or not sections:
        reading.add(dotted_name, "must be written section.key=value")
        return
    table = tables
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            reading.add(dotted_name, f"{section} is not a section")
            return
    table[key] = _override_value(text.strip())


def _override_value(text: str) -> object:
    """A TOML value; what is none is taken as the bare string a shell user meant."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _read_section(section: str, table: object, reading: _Reading) -> dict[str, Any]:
    known = settings_by_section()
    if section not in known:
        kind = "section" if isinstance(table, dict) else "key"
        reading.add(section, f"there is no {kind} [{section}]{_did_you_mean(section, known)}.")
        return {}
    if not isinstance(table, dict):
        reading.add(section, f"[{section}] is a section, not a value.")
        return {}
    values = {}
    for key, value in table.items():
        if reading.has_enough:
            break
        dotted_name = f"{section}.{key}"
        description = known[section].get(key)
        if description is None:
            reading.add(dotted_name, f"[{section}] has no key {key}{_did_you_mean(key, known[section])}.")
            continue
        converted = _convert(description, value)
        problem = converted.problem if isinstance(converted, _Unfit) else _violation(dotted_name, converted)
        if problem:
            reading.add(dotted_name, f"[{section}] {key} = {_shown(value)} {problem}.")
        else:
            values[key] = converted
    return values


@dataclass(frozen=True, slots=True)
class _Unfit:
    """A value that has not the type of its setting."""

    problem: str


def _convert(description: SettingDescription, value: object) -> object:
    fitting = _FITTING[description.type_name](value)
    return _Unfit(f"must be of type {description.type_name}") if fitting is None else fitting


def _as_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _as_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _as_words(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _as_options(value: object) -> dict[str, str | int | float | bool] | None:
    if not isinstance(value, dict) or not all(isinstance(item, str | int | float) for item in value.values()):
        return None
    return dict(value)


_FITTING = {
    "str": lambda value: value if isinstance(value, str) else None,
    "bool": lambda value: value if isinstance(value, bool) else None,
    "int": _as_int,
    "float": _as_float,
    "list of str": _as_words,
    "table": _as_options,
}


def _violation(dotted_name: str, value: object) -> str:
    constraint = CONSTRAINTS.get(dotted_name)
    return "" if constraint is None or constraint.holds(value) else f"must be {constraint.text}"


def _check_together(values: Mapping[str, Mapping[str, Any]], reading: _Reading) -> None:
    """Rules that need more than one setting; only looked at when each value is right by itself."""
    if not values.get("run", {}).get("task"):
        reading.add("run", "[run] task is missing: name the task function as package.module:function.")
    _check_tls(values.get("control", {}), reading)
    growth = values.get("growth", {})
    defaults = Settings().growth
    for low, high in (
        ("min_training_steps", "max_training_steps"),
        ("min_dwell_steps", "max_dwell_steps"),
        ("probe_units", "max_probe_units"),
    ):
        given_low, given_high = growth.get(low, getattr(defaults, low)), growth.get(high, getattr(defaults, high))
        if given_low > given_high:
            reading.add(
                f"growth.{low if low in growth else high}",
                f"[growth] {low} = {given_low} is more than {high} = {given_high}.",
            )
    embargo_s = growth.get("embargo_s", defaults.embargo_s)
    if values.get("training", {}).get("deterministic") and embargo_s > 0:
        problem = f"[growth] embargo_s = {embargo_s} is in wall time, which [training] deterministic = true forbids"
        reading.add("growth.embargo_s", f"{problem}; use embargo_steps.")


def _check_tls(control: Mapping[str, Any], reading: _Reading) -> None:
    served = [address for address in control.get("listen", ()) if address.startswith("tls:")]
    missing = [name for name in TLS_NAMES if not control.get(name)]
    if served and missing:
        reading.add("control.listen", f"[control] listen = {served[0]} also needs {', '.join(missing)}.")


def _resolve_paths(section: str, values: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    resolved = dict(values)
    if section == "run":
        given = resolved.get("directory", Settings().run.directory)
        resolved["directory"] = str(directory / given)
    if section == "checkpoints" and resolved.get("directory"):
        resolved["directory"] = str(directory / resolved["directory"])
    if section == "control":
        for name in ("keyring", *TLS_NAMES):
            if resolved.get(name):
                resolved[name] = str(directory / resolved[name])
        resolved["listen"] = tuple(_resolve_address(address, directory) for address in resolved.get("listen", ()))
    return resolved


def _resolve_address(address: str, directory: Path) -> str:
    scheme, _, path = address.partition(":")
    # unix:///run/x is the long form of unix:/run/x; unix-abstract and host:port are no paths.
    return f"unix:{directory / path.removeprefix('//')}" if scheme == "unix" else address


def _did_you_mean(given: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
