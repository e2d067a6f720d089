"""The daemon's log: one format for every line, and no secret in it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from esperd.config.settings import LogSettings
from esperd.leyline.secret import Secret
from esperd.weatherlight.log import configure_log


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_lines_are_json_when_nobody_watches() -> None:
    """`auto` means JSON where the stream is no terminal; each line is one object with time and level."""
    stream = io.StringIO()
    configure_log(LogSettings(), stream).info("hello", step=3)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["step"]) == ("hello", "info", 3)
    assert line["timestamp"].endswith("Z")


def test_secrets_are_cut_out() -> None:
    """A secret by type, or a field with a secret's name, never reaches the stream."""
    stream = io.StringIO()
    log = configure_log(LogSettings(format="json"), stream)
    log.info("key", key=Secret(b"hunter2-hunter2-hunter2-hunter2-"), nested={"secret": "hunter2"})
    assert "hunter2" not in stream.getvalue()


def test_other_libraries_lines_have_the_same_form() -> None:
    """A line of the standard logging module is JSON as well, with its traceback as text."""
    stream = io.StringIO()
    configure_log(LogSettings(format="json"), stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("asyncio").exception("oh")
    line = json.loads(stream.getvalue())
    assert line["event"] == "oh"
    assert "ValueError: broken" in line["exception"]


@pytest.mark.parametrize(("level", "num_lines"), [("debug", 2), ("info", 1), ("error", 0)])
def test_the_level_is_kept(level: str, num_lines: int) -> None:
    """Lines below `[log] level` are not written."""
    stream = io.StringIO()
    log = configure_log(LogSettings(level=level, format="json"), stream)
    log.debug("a")
    log.info("b")
    assert len(stream.getvalue().splitlines()) == num_lines


def test_console_lines_are_for_people() -> None:
    """`console` gives plain text."""
    stream = io.StringIO()
    configure_log(LogSettings(format="console"), stream).warning("watch out", step=1)
    assert "watch out" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
