"""Reload: reads configuration, keys and certificates again, and puts all of it in force, or nothing.

Event loop only. SIGHUP and ReloadConfig are this one function. Whatever can fail happens before anything changes: each
part prepares its own from the settings that would be in force, and what it hands back only assigns.
"""

from collections.abc import Callable, Sequence

from esperd.config.load import ConfigurationInvalid
from esperd.config.origin import RELOAD, Configuration, differing
from esperd.config.reloadable import RELOADABLE
from esperd.config.settings import Settings
from esperd.control.supervisor import Reloaded, SettingChange
from esperd.leyline.errors import EsperdError

Swap = Callable[[], object]
"""Puts in force what was prepared; assigns and cannot fail. What it returns is not looked at."""
Prepare = Callable[[Settings], Swap]
"""Reads and checks what a part needs under these settings and changes nothing; raises EsperdError."""

MAX_WORDS_CHARS = 4000


class Reload:
    """The configuration in force, and how another one comes into force."""

    def __init__(self, configuration: Configuration) -> None:
        """`configuration` is the one that the daemon starts with."""
        self.configuration = configuration
        self._parts: list[Prepare] = []

    def add(self, prepare: Prepare) -> None:
        """Have one more part take part in every reload; parts are swapped in the order in which they were added."""
        self._parts.append(prepare)

    def run(self) -> Reloaded:
        """Read everything again; apply all of it, or reject it with every error that was found."""
        before = self.configuration
        try:
            found = before.read_again()
        except ConfigurationInvalid as error:
            return Reloaded(rejected=error.errors)
        except EsperdError as error:
            return Reloaded(rejected=(error.message,))
        changes = [SettingChange(name, before.shown(name), found.shown(name)) for name in differing(before, found)]
        names = RELOADABLE.intersection(change.name for change in changes)
        wanted = before.with_values({name: found.value(name) for name in names}, RELOAD)
        errors = self._put_in_force(wanted)
        if errors:
            return Reloaded(rejected=tuple(errors))
        return Reloaded(
            applied=tuple(change for change in changes if change.name in names),
            restart_required=tuple(change for change in changes if change.name not in names),
        )

    def _put_in_force(self, wanted: Configuration) -> list[str]:
        """Prepare every part, then swap them all; none when there are errors, which are returned."""
        swaps: list[Swap] = []
        errors: list[str] = []
        for prepare in self._parts:
            try:
                swaps.append(prepare(wanted.settings))
            except EsperdError as error:
                errors.append(error.message)
        if not errors:
            for swap in swaps:
                swap()
            self.configuration = wanted
        return errors


def words_of(reloaded: Reloaded) -> str:
    """What a reload did, in a sentence that is not too long for a notice."""
    if reloaded.rejected:
        text = f"the configuration was not reloaded, nothing has changed: {'; '.join(reloaded.rejected)}"
    elif reloaded.applied or reloaded.restart_required:
        parts = [_told("in force now", reloaded.applied), _told("takes a restart", reloaded.restart_required)]
        text = f"the configuration was reloaded; {'; '.join(filter(None, parts))}"
    else:
        text = "the configuration was reloaded; no setting has changed"
    return text if len(text) <= MAX_WORDS_CHARS else f"{text[:MAX_WORDS_CHARS]} ..."


def _told(title: str, changes: Sequence[SettingChange]) -> str:
    return f"{title}: {', '.join(map(str, changes))}" if changes else ""
