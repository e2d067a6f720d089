"""Keys of a real daemon: exchanged under load, revoked for good, and their secrets nowhere but in their own files."""

import asyncio
import base64
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest
from esper.client.aio import AsyncClient
from esper.client.credentials import Credentials
from esper.client.errors import LeylineError
from esper.client.signing import sign
from esper.leyline.v1 import command_pb2, command_service_pb2
from esper.leyline.v1.command_service_pb2_grpc import CommandServiceStub
from esper.leyline.v1.vocabulary_pb2 import LEASE_MODE_STEER, TRAINER_PHASE_TRAINING

from esperd.cli.keys import make_key_pair
from esperd.leyline.keyring import KeyRing
from tests.integration.daemon.conftest import StartDaemon
from tests.integration.daemon.process import DaemonProcess, until_phase

SECURITY = Path(__file__).parents[3] / "esperd/docs/security.md"
NUM_CLIENTS = 4
CHECK = command_pb2.AdaptationCommand(
    run_control=command_pb2.CommandRunControl(action=command_pb2.RUN_ACTION_PAUSE), validate_only=True, reason="a test"
)
"""A signed call that is verified and checked, and changes nothing."""


@pytest.fixture
def admin_file(folder: Path) -> Path:
    """The key file of an administrator."""
    path = folder / "admin.toml"
    permissions = ("observe", "command", "operate", "admin")
    make_key_pair("admin", permissions, folder / "run" / "keys.toml", path, "", now_unix_s=time.time() - 1)
    return path


async def esperctl(daemon: DaemonProcess, key: Path, *arguments: object, code: int = 0) -> str:
    """Type a command beside the daemon; returns what it says on both streams."""
    return (await daemon.ctl(*arguments, key=key, code=code)).output


def key_id_of(path: Path) -> str:
    return Credentials.load(path).key_id


async def test_rotation_under_load_without_one_failed_call(
    start_daemon: StartDaemon, folder: Path, admin_file: Path
) -> None:
    """Four clients call all the while; the key is rotated, they change over one by one, the old key is revoked."""
    daemon = start_daemon()
    current, calls, stop = [daemon.key_file], [0] * NUM_CLIENTS, asyncio.Event()

    async def work(number: int) -> None:
        while not stop.is_set():
            signer = current[-1]
            async with AsyncClient(daemon.address, Credentials.load(signer), timeout_s=30) as client:
                while signer == current[-1] and not stop.is_set():
                    await client.submit(CHECK)
                    calls[number] += 1

    async def progress(num_calls: int = 25) -> None:
        goal = [count + num_calls for count in calls]
        while any(count < wanted for count, wanted in zip(calls, goal, strict=True)):
            assert not any(worker.done() for worker in workers), "a call has failed"
            await asyncio.sleep(0.01)

    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work(number)) for number in range(NUM_CLIENTS)]
        await progress()
        for round_number in range(2):
            old, fresh = current[-1], folder / f"operator-{round_number}.toml"
            rotate = ("keys", "rotate", key_id_of(old), "--client-file", fresh, "--overlap-hours", "1")
            told = await esperctl(daemon, admin_file, *rotate)
            assert "the daemon has read it" in told
            await progress()
            current.append(fresh)
            await progress(50)
            await esperctl(daemon, admin_file, "keys", "revoke", key_id_of(old), "--reason", "rotated")
            await progress()
        stop.set()
    listed = await esperctl(daemon, admin_file, "keys", "list")
    assert [line.split()[0] for line in listed.splitlines() if "revoked" in line] == [
        key_id_of(path) for path in current[:2]
    ]


async def test_a_client_takes_the_successor_from_its_file(
    start_daemon: StartDaemon, folder: Path, admin_file: Path
) -> None:
    """A client that is never restarted: its file is exchanged, the old key revoked, and its next call succeeds.

    Calls, batches on a stream that is opened anew and a policy's session, all with the key of before in memory.
    """
    daemon, fresh = start_daemon(), folder / "operator-2.toml"
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await client.submit(CHECK)
        old = key_id_of(daemon.key_file)
        await esperctl(daemon, admin_file, "keys", "rotate", old, "--client-file", fresh)
        fresh.rename(daemon.key_file)
        await client.submit(CHECK)
        await esperctl(daemon, admin_file, "keys", "revoke", old)
        await asyncio.gather(*(client.submit(CHECK) for _ in range(20)))
        async with client.decision_session(LEASE_MODE_STEER, "p", "1"):
            pass
        assert (await client.check_access()).key_id == key_id_of(daemon.key_file) != old


async def test_what_an_operator_types(start_daemon: StartDaemon, folder: Path, admin_file: Path) -> None:
    """Beside the daemon no ring has to be named; what is not in force is said; can-i answers with its exit code."""
    daemon, policy_file = start_daemon(), folder / "policy.toml"
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
    new = ("keys", "new", "policy", "--permission", "command", "--client-file")
    assert "the daemon has read it" in await esperctl(daemon, admin_file, *new, policy_file)
    key_id = key_id_of(policy_file)
    assert "yes" in await esperctl(daemon, policy_file, "auth", "can-i", "SubmitCommand")
    assert "lacks admin" in await esperctl(daemon, policy_file, "auth", "can-i", "SubmitCommand", "RevokeKey", code=1)
    assert "CommandService/SubmitCommand" in await esperctl(daemon, policy_file, "auth", "can-i")
    assert "no method Grow" in await esperctl(daemon, policy_file, "auth", "can-i", "Grow", code=2)
    told = await esperctl(daemon, policy_file, *new, folder / "mine.toml")
    assert "goes on with the key ring it has: E-AUTH-013" in told
    assert "policy-" in (await esperctl(daemon, admin_file, "keys", "reload")).splitlines()[0]
    another = (*new, folder / "other.toml", "--keyring", folder / "elsewhere.toml")
    assert "is another: see [control] keyring" in await esperctl(daemon, admin_file, *another)
    assert "E-AUTH-017" in await esperctl(daemon, admin_file, "keys", "revoke", "nobody-1", code=1)
    assert "accepted until" in await esperctl(daemon, admin_file, "keys", "retire", key_id)
    row = next(line for line in (await esperctl(daemon, admin_file, "keys", "list")).splitlines() if key_id in line)
    assert row.split()[3] == "retiring"
    assert "retiring" in await esperctl(daemon, policy_file, "auth", "can-i", "SubmitCommand")
    (folder / "run" / "keys.toml").chmod(0o644)
    assert "it must be 0600" in await esperctl(daemon, admin_file, "keys", "reload", code=1)
    await daemon.until_logged("a retiring key is still used")


async def test_the_documents_commands(
    start_daemon: StartDaemon, folder: Path, admin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command about keys of esperd/docs/security.md does what it says, one after the other."""
    daemon = start_daemon()
    async with daemon.client():
        pass
    lines = [line for line in SECURITY.read_text().splitlines() if line.startswith(("esperctl keys", "esperctl audit"))]
    assert len(lines) >= 7
    monkeypatch.chdir(folder)
    for line in lines:
        named = "tamiyo-1a2b3c4d"
        words = [key_id_of(Path("tamiyo.toml")) if word == named else word for word in shlex.split(line)[1:]]
        await esperctl(daemon, admin_file, *words)
    listed = await esperctl(daemon, admin_file, "keys", "list")
    assert [line.split()[3] for line in listed.splitlines() if line.startswith("tamiyo-")] == [
        "revoked", "active", "active",
    ]  # fmt: skip


async def test_a_revocation_survives_a_kill(start_daemon: StartDaemon, folder: Path, admin_file: Path) -> None:
    """It is durable before it is answered: killed right after, the next start refuses the key, and so does its ring."""
    daemon = start_daemon()
    async with daemon.client() as client, client.decision_session(LEASE_MODE_STEER, "p", "1") as session:
        await esperctl(daemon, admin_file, "keys", "revoke", key_id_of(daemon.key_file))
        daemon.signal(signal.SIGKILL)
        with pytest.raises(LeylineError):
            async for _ in session:
                pass
    daemon.wait()
    again = start_daemon()
    async with again.client() as client:
        with pytest.raises(LeylineError) as caught:
            await client.submit(CHECK)
    assert caught.value.reason == "KEY_NOT_ACTIVE"
    ring = KeyRing.load(folder / "run" / "keys.toml").find(key_id_of(daemon.key_file))
    assert ring is not None
    assert ring.declared == "active", "the ring itself is the operator's"


async def test_a_daemon_without_a_ring_gets_one(start_daemon: StartDaemon, folder: Path) -> None:
    """It says what to do, refuses what is signed, and takes its first ring on SIGHUP."""
    daemon = start_daemon(keys=False)
    make_key_pair("operator", ("command",), folder / "elsewhere.toml", daemon.key_file, "", now_unix_s=time.time() - 1)
    async with daemon.client() as client:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        with pytest.raises(LeylineError) as caught:
            await client.submit(CHECK)
        assert caught.value.reason == "NO_KEYRING"
        (folder / "elsewhere.toml").rename(folder / "run" / "keys.toml")
        daemon.signal(signal.SIGHUP)
        await daemon.until_logged("key ring read again")
        await client.submit(CHECK)
    assert "no key ring: every signed request is refused" in daemon.log


async def test_a_damaged_file_of_revocations_stops_the_start(start_daemon: StartDaemon, folder: Path) -> None:
    """Better no daemon than one that lets a revoked key in."""
    (folder / "run").mkdir(mode=0o700)
    (folder / "run" / "revoked-keys.toml").write_text("nonsense")
    (folder / "run" / "revoked-keys.toml").chmod(0o600)
    daemon = start_daemon()
    assert daemon.wait() == 1
    assert "E-CFG-003" in daemon.log
    assert "revoked-keys.toml" in daemon.log


async def test_secrets_are_nowhere_but_in_their_files(
    start_daemon: StartDaemon, folder: Path, admin_file: Path
) -> None:
    """Whatever happens to keys, no log at debug, journal, checkpoint, dump, argument or variable shows a secret.

    Good and bad requests, a ring with a mistyped secret, a revocation, a policy's session, a dump and an end in order.
    """
    daemon = start_daemon("log.level=debug", "checkpoints.every_steps=50")
    secrets = [Credentials.load(path).secret for path in (daemon.key_file, admin_file)]
    async with daemon.client() as client, AsyncClient(daemon.address, Credentials.load(admin_file)) as admin:
        await until_phase(client, TRAINER_PHASE_TRAINING)
        await _misuse(client, daemon)
        await client.submit(CHECK)
        await client.checkpoint(note="with secrets about")
        async with client.decision_session(LEASE_MODE_STEER, "p", "1"):
            dump = await admin.diagnostics("a test")
        secrets.append(await _mistype_a_secret(admin, folder, secrets[0]))
        told = [dump, await admin.keys(), await admin.config(), await admin.connections(), await admin.check_access()]
        shown = b"".join(message.SerializeToString() for message in told)
        await admin.revoke_key(key_id_of(daemon.key_file), "a test")
        for name in ("cmdline", "environ", "comm"):
            shown += Path(f"/proc/{daemon.process.pid}/{name}").read_bytes()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    own = {folder / "run" / "keys.toml", daemon.key_file, admin_file}
    files = [path for path in folder.rglob("*") if path.is_file() and path not in own]
    assert {path.name for path in files} >= {"daemon.log", "journal.sqlite", "revoked-keys.toml"}
    assert any("checkpoints" in path.parts for path in files)
    for secret in secrets:
        forms = (secret, secret.hex().upper().encode(), base64.b64encode(b"ab" + secret + b"c"))
        assert all(list(_found(secret, b"<" + form + b">")) for form in forms), "the search does not find it"
        assert not list(_found(secret, shown))
        for path in files:
            assert not list(_found(secret, path.read_bytes())), path


async def _misuse(client: AsyncClient, daemon: DaemonProcess) -> None:
    """Requests that are refused: wrongly signed, and for another daemon."""
    good = Credentials.load(daemon.key_file)
    info = await client.server_info()
    method = "/esper.leyline.v1.CommandService/SubmitCommand"
    facts = {"epoch": info.epoch, "method": method, "payload": b"", "now": time.time(), "nonce": bytes(16)}
    forged = Credentials(good.key_id, good.principal, bytes(range(32)))
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        for credentials, audience in ((forged, info.server_id), (good, "another")):
            request = command_service_pb2.SubmitCommandRequest(envelope=sign(credentials, audience=audience, **facts))
            with pytest.raises(grpc.aio.AioRpcError, match="E-AUTH-"):
                await CommandServiceStub(channel).SubmitCommand(request)


async def _mistype_a_secret(admin: AsyncClient, folder: Path, secret: bytes) -> bytes:
    """Reload a ring with a secret that has one digit too few; returns what is still recognisable of it."""
    ring = folder / "run" / "keys.toml"
    good = ring.read_text()
    ring.write_text(good.replace(secret.hex(), secret.hex()[:-1]))
    with pytest.raises(LeylineError) as caught:
        await admin.reload_keys()
    assert caught.value.reason == "KEYRING_INVALID"
    assert not list(_found(secret[:16], str(caught.value.metadata).encode()))
    ring.write_text(good)
    await admin.reload_keys()
    return secret[:16]


def _found(secret: bytes, text: bytes) -> Iterator[str]:
    """In which forms a secret is in a text: raw, hexadecimal, base64 at any offset."""
    lowered = text.lower()
    if secret in text:
        yield "raw"
    if secret.hex().encode() in lowered:
        yield "hexadecimal"
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The first and the last characters depend on what is around; those between are the secret's own.
            if encode(bytes(offset) + secret)[4:-4] in text:
                yield "base64"
