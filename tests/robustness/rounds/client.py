"""One client process of a round: `python -m tests.robustness.rounds.client --name N --roles command,watch ...`."""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from esper.client.credentials import Credentials

from tests.robustness.rounds.events import Notes
from tests.robustness.rounds.roles import ROLES, Post


def main(arguments: Sequence[str]) -> int:
    """Work at all roles at once until the time is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--roles", required=True)
    parser.add_argument("--address", action="append", required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asked = parser.parse_args(arguments)
    notes = Notes(asked.notes)
    source = random.Random(asked.seed)
    credentials = Credentials.load(asked.key)
    post = Post(asked.name, tuple(asked.address), credentials, notes, source, time.monotonic() + asked.seconds)
    asyncio.run(_work(post, asked.roles.split(",")))
    notes.close()
    return 0


async def _work(post: Post, roles: Sequence[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for role in roles:
            group.create_task(ROLES[role](post), name=role)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
