"""What can go wrong with the journal, each under its own name, all from the error catalogue."""

from esperd.leyline.errors import EsperdError


class JournalUnavailable(EsperdError):
    """The rows could not be made durable (full disk, I/O error, journal closed); the next try may succeed.

    Nothing half-written is left. After a failed flush to disk, as with any database, a crash may still bring
    the whole write back; recovery then settles it like every other command without an outcome.
    """

    def __init__(self, detail: str) -> None:
        super().__init__("JOURNAL_UNAVAILABLE", detail=detail)


class JournalLocked(EsperdError):
    """Another daemon owns this journal."""

    def __init__(self, path: str, pid: str) -> None:
        super().__init__("DIRECTORY_TAKEN", path=path, pid=pid)


class JournalUnreadable(EsperdError):
    """The file is no journal, is damaged, or was written by a newer daemon."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__("JOURNAL_UNREADABLE", path=path, detail=detail)


class RequestIdReused(EsperdError):
    """A request id came back with another payload; nothing of its batch was accepted."""

    def __init__(self, request_id: str, command_id: str) -> None:
        super().__init__("REQUEST_ID_REUSED", request_id=request_id, command_id=command_id)
        self.request_id = request_id
        self.command_id = command_id


class DuplicateRecord(EsperdError):
    """A record of this name (command, report or run id) is in the journal already; nothing was written."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__("RECORD_EXISTS", kind=kind, key=key)
        self.kind = kind
        self.key = key


class PageTokenInvalid(EsperdError):
    """The page token was not given out by this list."""

    def __init__(self) -> None:
        super().__init__("PAGE_TOKEN_INVALID")
