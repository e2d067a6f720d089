"""What earlier starts of the daemon have left for this one, read from the journal.

Event loop only.
"""

from esperd.control.recorded_commands import to_command
from esperd.leyline.commands import PolicyPresence
from esperd.leyline.vocabulary import CommandState
from esperd.oona.journal import Journal
from esperd.oona.records import CommandQuery


async def had_policy(journal: Journal, run_started_unix_s: float) -> bool:
    """Whether the last that the trainer of this run was told of a policy is that one had come."""
    page = await journal.list_commands(CommandQuery(kind=PolicyPresence.__name__), 1)
    told = [row for row in page.rows if row.state in (CommandState.APPLIED, CommandState.ACCEPTED)]
    if not told or told[0].accepted_unix_s < run_started_unix_s:
        return False  # none, or an earlier run's
    payload = to_command(told[0]).payload
    return isinstance(payload, PolicyPresence) and payload.present
