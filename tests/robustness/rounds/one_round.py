"""One round: a daemon, several client processes, disturbances of all kinds for some seconds, and then the verdict.

Everything that the verdict needs lies in the round's folder afterwards, so that `judge` can be asked again without
anything else.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from esperd.cli.keys import make_key_pair
from tests.integration.daemon.process import free_port
from tests.robustness.history import read_history
from tests.robustness.nemesis import Nemesis
from tests.robustness.performance import Performance
from tests.robustness.processes import REPOSITORY, Launcher
from tests.robustness.random_commands import RandomCommands
from tests.robustness.rounds.events import Accepted, Message, Notes, Outcome, Replayed, Seen, of_kind, read_events
from tests.robustness.rounds.fault_proxy import FaultProxy
from tests.robustness.rounds.judgement import Round, verdict
from tests.robustness.rounds.network_nemesis import NetworkNemesis
from tests.robustness.script import OVERRIDES
from tests.robustness.soak import faults
from tests.robustness.validators import Violations

ROUND_S = 20.0
_STEP_S = 0.005
_KILL_EVERY_S = (2.0, 6.0)
_LOOK_S = 0.05
_LINGER_S = 2.0
"""How long clients go on when nobody disturbs them any more."""
_END_S = 30.0
_PERMISSIONS = ("observe", "command", "emergency", "operate")
_CREWS = (
    ("command", "watch", "emergency,audit"),
    ("command", "command,audit", "watch", "emergency"),
    ("command", "policy", "watch", "watch", "emergency,audit"),
    ("command", "command", "policy,audit", "watch", "emergency", "watch"),
)
"""Roles of each process: three to six processes."""
_OVERRIDES = (
    *(override for override in OVERRIDES if not override.startswith(("run.start_paused", "checkpoints.keep="))),
    f"run.task_options.step_s={_STEP_S}",
    "checkpoints.keep=4",
    "control.training_share=1.0",
)


@dataclass(slots=True)
class Report:
    """What a round did and what was found."""

    random_seed: int
    num_clients: int = 0
    num_starts: int = 0
    num_commands: int = 0
    num_messages: int = 0
    """Messages that watches got."""
    disturbances: dict[str, int] = field(default_factory=dict)
    answers_to_replays: dict[str, int] = field(default_factory=dict)
    violations: Violations = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        sizes = f"{self.num_clients} clients, {self.num_starts} starts, {self.num_commands} commands"
        yield f"round {self.random_seed}: {sizes}, {self.num_messages} messages of watches"
        for what, counts in (("disturbances", self.disturbances), ("replays", self.answers_to_replays)):
            yield f"  {what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        yield from (f"  WRONG {line}" for line in self.violations)


def perform(folder: Path, launcher: Launcher, random_seed: int, seconds: float = ROUND_S) -> Report:
    """One round in a folder, whose name must be short enough for a socket; `random_seed` decides what is done."""
    source = random.Random(random_seed)
    crew = source.choice(_CREWS)
    tcp = f"127.0.0.1:{free_port()}"
    listen = f"control.listen=['unix:{folder}/run/leyline.sock', '{tcp}']"
    with ExitStack() as stack:
        performance = stack.enter_context(closing(Performance(folder, launcher, (*_OVERRIDES, listen))))
        notes = stack.enter_context(closing(Notes(folder / "driver.jsonl")))
        keys = [_key(folder, number) for number in range(len(crew))]
        performance.look()
        unix = f"unix:{folder}/run/leyline.sock"
        proxies = [
            stack.enter_context(closing(FaultProxy("127.0.0.1:0", tcp))),
            stack.enter_context(closing(FaultProxy(f"unix:{folder}/proxy.sock", unix))),
        ]
        addresses = [unix, tcp, *(proxy.address for proxy in proxies)]
        clients = [
            _start_client(folder, number, roles, addresses, keys[number], random_seed, seconds + _LINGER_S)
            for number, roles in enumerate(crew)
        ]
        done = _disturb(performance, proxies, clients, source, seconds)
        found = _ends_of(folder, clients)
        RandomCommands(performance, source).bring_to_its_end()
        _note_driver(performance, notes)
        found += [f"log: {line}" for line in faults(performance.log)]
    (folder / "round.json").write_text(json.dumps({"random_seed": random_seed, "found": found}))
    return _report(folder, len(crew), performance.num_starts, done)


def judge(folder: Path) -> tuple[Round, Violations]:
    """The verdict over a round's files."""
    events = [event for path in sorted(folder.glob("*.jsonl")) for event in read_events(path)]
    judged = Round(read_history(folder / "run" / "journal.sqlite"), tuple(events))
    found = json.loads((folder / "round.json").read_text())["found"]
    return judged, (*found, *verdict(judged))


def _report(folder: Path, num_clients: int, num_starts: int, done: Counter[str]) -> Report:
    judged, violations = judge(folder)
    replays = Counter(event.answer or "no answer" for event in of_kind(Replayed, judged.events))
    return Report(
        json.loads((folder / "round.json").read_text())["random_seed"],
        num_clients,
        num_starts,
        len(judged.history.commands),
        len(of_kind(Message, judged.events)),
        dict(done),
        dict(replays),
        violations,
    )


def _key(folder: Path, number: int) -> Path:
    path = folder / f"client-{number}.toml"
    ring = folder / "run" / "keys.toml"
    make_key_pair(f"client-{number}", _PERMISSIONS, ring, path, "", now_unix_s=time.time() - 1)
    return path


def _start_client(
    folder: Path, number: int, roles: str, addresses: Sequence[str], key: Path, random_seed: int, seconds: float
) -> "subprocess.Popen[bytes]":
    arguments = [f"--name=c{number}", f"--roles={roles}", f"--key={key}", f"--notes={folder}/client-{number}.jsonl"]
    arguments += [f"--seed={random_seed * 100 + number}", f"--seconds={seconds}"]
    arguments += [f"--address={address}" for address in addresses]
    with (folder / f"client-{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.robustness.rounds.client", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=REPOSITORY,
        )


def _disturb(
    performance: Performance,
    proxies: Sequence[FaultProxy],
    clients: Sequence["subprocess.Popen[bytes]"],
    source: random.Random,
    seconds: float,
) -> Counter[str]:
    """Disturb for so long, and keep the daemon up until the clients have ended; what was done how often."""
    nemesis = Nemesis(performance, source, None, _KILL_EVERY_S)
    network = NetworkNemesis(proxies, source)
    try:
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            nemesis.maybe()
            network.maybe()
            performance.look()
            time.sleep(_LOOK_S)
    finally:
        nemesis.end()
        network.end()
    deadline_s = time.monotonic() + _END_S
    while any(client.poll() is None for client in clients) and time.monotonic() < deadline_s:
        performance.look()
        time.sleep(_LOOK_S)
    return nemesis.done + network.done


def _ends_of(folder: Path, clients: Sequence["subprocess.Popen[bytes]"]) -> list[str]:
    """Clients that did not end, or not well."""
    found = []
    for number, client in enumerate(clients):
        status = client.poll()
        if status is None:
            client.kill()
            client.wait()
            found.append(f"client {number} did not end")
        elif status:
            log = (folder / f"client-{number}.log").read_text()
            found.append(f"client {number} ended with {status}: {log[-2000:]}")
    return found


def _note_driver(performance: Performance, notes: Notes) -> None:
    """What the driver itself was told goes to the same files."""
    for answer in performance.answers:
        ids = (answer.command_id,) if answer.command_id else ()
        notes.write(Accepted("driver", (answer.request_id,), ids, 0.0, 0.0))
    for told in performance.told:
        notes.write(Outcome(told.command_id, told.state, told.global_step))
    for seen in performance.sightings:
        notes.write(Seen(seen.start, seen.revision, seen.timeline, seen.global_step))
