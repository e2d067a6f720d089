"""The configuration file becomes settings, or every error in it at once."""

import string
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esperd.config.fields import describe_settings, settings_by_section
from esperd.config.load import MAX_ERRORS, MAX_FILE_BYTES, load_settings, parse_settings
from esperd.config.settings import Settings
from esperd.leyline.errors import EsperdError

HERE = Path("/somewhere")
TASK = '[run]\ntask = "my_task:build"\n'


def parse(text: str, *overrides: str) -> Settings:
    return parse_settings(text, "esperd.toml", HERE, overrides)


def error_of(text: str, *overrides: str) -> str:
    with pytest.raises(EsperdError) as caught:
        parse(text, *overrides)
    assert caught.value.reason == "CONFIG_INVALID"
    return caught.value.message


def test_what_is_not_in_the_file_has_its_default() -> None:
    """A file that names only the task gives the defaults of settings.py."""
    settings = parse(TASK)
    assert settings.run.task == "my_task:build"
    assert settings.growth == Settings().growth


def test_values_of_every_type_are_read() -> None:
    """Strings, integers, floats, booleans, lists and the options table arrive as their types."""
    settings = parse(
        TASK + "num_steps = 10\nexit_when_finished = true\n[run.task_options]\nwidth = 4\nname = 'x'\n"
        "[growth]\nsites = ['blocks.*']\nrho = 1\n"
    )
    assert settings.run.num_steps == 10
    assert settings.run.exit_when_finished is True
    assert settings.run.task_options == {"width": 4, "name": "x"}
    assert settings.growth.sites == ("blocks.*",)
    assert isinstance(settings.growth.rho, float)


def test_an_unknown_key_names_its_line_and_what_was_meant() -> None:
    """A misspelt key is an error with file, line and the nearest known key."""
    message = error_of(TASK + "\n[growth]\nsitse = ['a']\n")
    assert "esperd.toml:5" in message
    assert "did you mean sites?" in message


def test_an_unknown_section_is_an_error() -> None:
    """A misspelt section is an error with the nearest known section."""
    assert "did you mean training?" in error_of(TASK + "[trainig]\namp = 'off'\n")


def test_all_errors_are_told_at_once() -> None:
    """Unknown key, wrong type, bad range and bad word are in one message."""
    message = error_of(
        "[run]\ntask = 'a:b'\nnum_steps = -1\nrandom_seed = 'x'\n[training]\namp = 'fp8'\n[growth]\nnope = 1\n"
    )
    for part in ("4 errors", "num_steps = -1", "random_seed = 'x'", "of type int", "auto, off, bf16, fp16", "nope"):
        assert part in message


@pytest.mark.parametrize(
    "text",
    [
        "[growth]\nrho = nan",
        "[growth]\nrho = inf",
        "[growth]\nblend_alpha = 0",
        "[growth]\nallow_tier = 'UNSPECIFIED'",
        "[run]\ntask = 'a:b'\nnum_steps = true",
        "[run]\ntask = 'a:b'\nnum_steps = 1.5",
        "[run]\ntask = 'not a task'",
        "[run]\ntask = 'a:b'\ndirectory = ''",
        "[control]\nlisten = ['/a/path']",
        "[growth]\nmin_training_steps = 100\nmax_training_steps = 10",
        "[checkpoints]\nevery_steps = -1",
        "[checkpoints]\nkeep = 0",
        "[checkpoints]\nkeep_every_steps = -500",
        "[checkpoints]\nsnapshots = 65",
        "[checkpoints]\nmax_snapshot_bytes = -1",
        "[checkpoints]\ngood_after_steps = 0",
        '[checkpoints]\ndirectory = "\\u0000"',
        "[budgets]\nfull_rollback_s = 0",
        "[budgets]\nmax_rollbacks = 0",
        "run = 3",
        "[run",
        "x = " + "9" * 5000,
        "x = " + "[" * 5000,
    ],
)
def test_bad_values_are_refused(text: str) -> None:
    """Wrong types, NaN, infinity, ends of ranges, contradictions and broken TOML are CONFIG_INVALID."""
    error_of(text if "task" in text else TASK + text)


def test_a_deterministic_run_has_no_embargo_in_wall_time() -> None:
    """An embargo in seconds would end at another step in each run; without deterministic it is allowed."""
    growth = "[growth]\nembargo_s = 1.5\n"
    message = error_of(TASK + "[training]\ndeterministic = true\n" + growth)
    assert "esperd.toml:6" in message
    assert "embargo_steps" in message
    assert parse(TASK + growth).growth.embargo_s == 1.5
    assert parse(TASK + "[training]\ndeterministic = true\n[growth]\nembargo_steps = 9\n").training.deterministic


def test_a_task_must_be_named() -> None:
    """Without a task there is nothing to train."""
    assert "task is missing" in error_of("[training]\namp = 'off'\n")


def test_relative_paths_start_at_the_files_directory() -> None:
    """Run directory, checkpoints, key ring and sockets are resolved against the file, not the working directory."""
    settings = parse(
        TASK + "directory = 'r'\n[control]\nkeyring = 'k.toml'\nlisten = ['unix:s.sock', '127.0.0.1:0']\n"
        "[checkpoints]\ndirectory = 'c'\n"
    )
    assert settings.run.directory == "/somewhere/r"
    assert settings.checkpoints.directory == "/somewhere/c"
    assert settings.control.keyring == "/somewhere/k.toml"
    assert settings.control.listen == ("unix:/somewhere/s.sock", "127.0.0.1:0")


def test_overrides_win_over_the_file() -> None:
    """`--set` replaces the file's value; a bare word is a string."""
    settings = parse(TASK + "num_steps = 1\n", "run.num_steps=7", "training.amp=off", "growth.sites=['a', 'b']")
    assert (settings.run.num_steps, settings.training.amp, settings.growth.sites) == (7, "off", ("a", "b"))


@pytest.mark.parametrize("override", ["run.num_stepz=1", "nope", "=", "run.num_steps=x", "run.task.x=1", "a.b.c=1"])
def test_a_bad_override_is_named(override: str) -> None:
    """An override is checked like the file and called by its own name."""
    assert "--set" in error_of(TASK, override)


def test_a_missing_or_unreadable_file_says_so(tmp_path: Path) -> None:
    """No file, a directory, and bytes that are no text are CONFIG_UNREADABLE."""
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.toml", tmp_path, binary):
        with pytest.raises(EsperdError) as caught:
            load_settings(path)
        assert caught.value.reason == "CONFIG_UNREADABLE"


def test_every_setting_is_described() -> None:
    """Each field of settings.py has a help text, and its default satisfies its own constraint."""
    for description in describe_settings():
        assert description.help, description.dotted_name
    assert parse(TASK) == parse(TASK + _defaults_as_toml())


def _defaults_as_toml() -> str:
    sections = []
    for section, items in settings_by_section().items():
        lines = [f"[{section}]"] if section != "run" else []
        lines += [
            f"{item.name} = {_toml(item.default)}"
            for item in items.values()
            if item.type_name != "table" and item.dotted_name != "run.task"
        ]
        sections.append("\n".join(lines))
    return "\n".join(sections) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return repr(value)


WORDS = st.sampled_from([d.section for d in describe_settings()] + [d.name for d in describe_settings()]) | st.text(
    string.ascii_letters + "_", min_size=1, max_size=8
)
VALUES = st.recursive(
    st.integers().map(str)
    | st.floats().map(lambda x: str(x) if "e" not in str(x) else "1.5")
    | st.sampled_from(["true", "false", "'unix:x'", "'a:b'", "1979-05-27", "''", '"\\u0000"'])
    | st.text(string.printable, max_size=10).map(lambda s: '"' + s.replace("\\", "").replace('"', "") + '"'),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=4,
)


@given(st.lists(st.tuples(WORDS, WORDS, VALUES), max_size=5), st.lists(st.text(max_size=20), max_size=2))
def test_random_files_never_crash(rows: list[tuple[str, str, str]], overrides: list[str]) -> None:
    """Whatever is written, the answer is settings or an error of the catalogue."""
    text = "".join(f"[{section}]\n{key} = {value}\n" for section, key, value in rows)
    try:
        settings = parse(text, *overrides)
    except EsperdError:
        return
    assert settings.run.task


@given(st.text(max_size=200))
def test_random_text_never_crashes(text: str) -> None:
    """Text that is no TOML at all is an error of the catalogue."""
    with pytest.raises(EsperdError):
        parse(text)


def test_values_survive_a_round_trip() -> None:
    """The defaults written as TOML are valid TOML."""
    assert tomllib.loads(TASK + _defaults_as_toml())["training"]["amp"] == "auto"


def test_a_file_full_of_errors_is_told_of_in_part() -> None:
    """A long list would help nobody, and finding it would hold up a daemon that reloads."""
    text = error_of(TASK + "[log]\n" + "".join(f"nonsense{number} = 1\n" for number in range(10_000)))
    assert len(text.splitlines()) < MAX_ERRORS + 5
    assert "there may be more" in text
    text = error_of(TASK + "".join(f"[nonsense{number}]\n" for number in range(10_000)))
    assert len(text.splitlines()) < MAX_ERRORS + 5


TLS = "[control]\nlisten = ['tls:0.0.0.0:50051']\n"


def test_tls_needs_its_three_files() -> None:
    """An address with TLS and a missing file is told at its line; paths are relative to the configuration's."""
    assert "esperd.toml:4: [control] listen = tls:0.0.0.0:50051 also needs tls_private_key, tls_client_ca." in error_of(
        TASK + TLS + "tls_certificate = 's.pem'\n"
    )
    files = "tls_certificate = 's.pem'\ntls_private_key = '/etc/s.key'\ntls_client_ca = 'ca.pem'\n"
    control = parse(TASK + TLS + files).control
    assert control.listen == ("tls:0.0.0.0:50051",)
    named = (control.tls_certificate, control.tls_private_key, control.tls_client_ca)
    assert named == ("/somewhere/s.pem", "/etc/s.key", "/somewhere/ca.pem")


@pytest.mark.parametrize("rate", ["0", "-1.0", "nan", "inf", "true"])
def test_a_rate_is_above_nothing(rate: str) -> None:
    """A limit of zero would lock everybody out; there is no word for none."""
    assert "max_reads_per_s" in error_of(TASK + f"[control]\nmax_reads_per_s = {rate}\n")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """It is none, and parsing it would hold up a daemon that reloads."""
    path = tmp_path / "esperd.toml"
    path.write_text(TASK + "# " + "x" * MAX_FILE_BYTES)
    with pytest.raises(EsperdError) as caught:
        load_settings(path)
    assert caught.value.reason == "CONFIG_UNREADABLE"
