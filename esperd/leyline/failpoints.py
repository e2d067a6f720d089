"""Named places where a test may stop the process: nothing at all unless a test has put a hook there.

Any thread. No setting, argument or environment variable reaches `set_hook`; only code that runs inside the process can
call it, and the package itself never does (a test looks).
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Pass a place; `name` is dotted, e.g. `journal.before_fsync`."""
    if _hook is not None:
        _hook(name)


def set_hook(hook: Callable[[str], None] | None) -> None:
    """Have `hook` called with the name of every place that is passed; None takes it away. For tests."""
    global _hook
    _hook = hook
