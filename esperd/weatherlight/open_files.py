"""Sees that connections never take every file that the daemon may open: the journal and checkpoints need theirs.

Main thread, once, before anything is bound. A shell allows 1,024 files unless told otherwise, which is what one address
alone may have in connections; a daemon without a file left to open writes no checkpoint and reads no key ring.
"""

import resource

from structlog.stdlib import BoundLogger

from esperd.config.settings import ControlSettings

OWN_FILES = 1024
"""For everything but connections: the journal, checkpoints, libraries that are loaded, workers that load data."""


def allow_open_files(control: ControlSettings, log: BoundLogger) -> None:
    """Raise this process's own limit as far as it takes and the system lets; warn when that is not enough."""
    wanted = OWN_FILES + max(1, len(control.listen)) * control.max_connections
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return
    possible = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, most))
    if possible < wanted:
        log.warning(
            "connections could take every file that may be opened; lower [control] max_connections or raise the limit",
            limit=possible,
            needed=wanted,
        )
