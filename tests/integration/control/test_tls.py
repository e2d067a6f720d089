"""Mutual TLS over a real server: who is let in, under which name, and certificates that change while it serves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from click.testing import CliRunner
from esper.client.aio import AsyncClient
from esper.client.errors import LeylineError, Unreachable
from esper.client.sync import Client
from esper.client.tls import TlsFiles
from esper.ctl.main import main
from esper.leyline.v1.run_service_pb2 import GetRunRequest
from esper.leyline.v1.run_service_pb2_grpc import RunServiceStub

from esperd.config.settings import ControlSettings
from esperd.leyline.errors import EsperdError
from esperd.leyline.views import NoticeEvent
from esperd.oona.records import AuditQuery, HistoryQuery
from tests.certificates import Certificates
from tests.integration.control.stage import Theatre, eventually, fresh_command, open_stage


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Two CAs; what each has signed."""
    made = Certificates(tmp_path_factory.mktemp("tls"))
    for ca, suffix in (("ca", ""), ("other", "-2")):
        made.ca(ca)
        made.signed(f"server{suffix}", ca)
        made.signed(f"client{suffix}", ca, usage="clientAuth", names="DNS:policy.example")
    made.signed("renewed")
    made.signed("elsewhere", names="DNS:elsewhere.example")
    return made


@contextlib.asynccontextmanager
async def tls_stage(
    directory: Path, made: Certificates, name: str = "server", ca: str = "ca", port: str = "0"
) -> AsyncIterator[Theatre]:
    files = made.server(name, ca)
    directory.mkdir(exist_ok=True)
    control = ControlSettings(
        listen=(f"unix:{directory}/leyline.sock", f"tls:127.0.0.1:{port}"),
        tls_certificate=str(files.certificate),
        tls_private_key=str(files.private_key),
        tls_client_ca=str(files.client_ca),
    )
    async with open_stage(directory, control=control) as stage:
        yield stage


@pytest.fixture
async def served(directory: Path, made: Certificates) -> AsyncIterator[Theatre]:
    async with tls_stage(directory, made) as stage:
        yield stage


def client(stage: Theatre, files: TlsFiles, who: str = "operator") -> AsyncClient:
    return AsyncClient(stage.addresses[1], stage.credentials(who), tls=files, timeout_s=10)


async def unreachable(stage: Theatre, files: TlsFiles) -> str:
    async with client(stage, files) as stranger:
        with pytest.raises(Unreachable) as refused:
            await stranger.run()
    return refused.value.message


async def test_a_certified_client_is_served_and_named(served: Theatre, made: Certificates) -> None:
    """Reads and changes; the audit trail says whose certificate it was."""
    async with client(served, made.client()) as policy:
        assert (await policy.run()).run.run_id == "run-1"
        done = await policy.submit(fresh_command(served), wait=True)
        assert done.state == 2
    names = {peer.name.partition(" ")[2] for peer in served.server.parts.connections.peers}
    assert names == {"cn=client"}
    await served.server.parts.recorder.flush(5.0)
    (row,) = (await served.journal.list_audit(AuditQuery())).rows
    assert row.entry.peer.startswith("ipv4:127.0.0.1:")
    assert row.entry.peer.endswith(" cn=client")


async def test_strangers_are_kept_out(served: Theatre, made: Certificates) -> None:
    """A certificate of another CA, none at all, no TLS at all: none of them gets an answer."""
    stranger = replace(made.client("client-2", "other"), ca=made.client().ca)
    told = await unreachable(served, stranger)
    assert "perhaps this certificate has expired, or the daemon does not know its" in told
    place = served.addresses[1].removeprefix("tls:")
    anonymous = grpc.ssl_channel_credentials(made.client().ca.read_bytes())
    async with grpc.aio.secure_channel(place, anonymous) as nobody, grpc.aio.insecure_channel(place) as plain:
        for channel in (nobody, plain):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await RunServiceStub(channel).GetRun(GetRunRequest(), timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_knows_its_daemon(directory: Path, made: Certificates) -> None:
    """A daemon with a certificate of another CA, or for other names, is not talked to."""
    async with tls_stage(directory, made, "server-2") as stage:
        assert "its certificate is not of the named CA" in await unreachable(stage, made.client())
    async with tls_stage(directory / "b", made, "elsewhere") as stage:
        assert "its certificate is for other names" in await unreachable(stage, made.client())


async def test_administration_stays_on_the_socket(served: Theatre, made: Certificates) -> None:
    """A certificate does not make a caller local."""
    async with client(served, made.client()) as remote:
        with pytest.raises(LeylineError) as refused:
            await remote.keys()
    assert refused.value.reason == "UNIX_SOCKET_ONLY"


async def test_certificates_change_under_load(served: Theatre, made: Certificates) -> None:
    """20 changes while clients call on connections that stand and on new ones: no call fails, newcomers see the new."""
    certificates = served.server._certificates
    assert certificates is not None
    pairs = [certificates.prepare(made.server(name)) for name in ("renewed", "server")]
    num_calls = 0
    is_over = False

    async def keep_calling() -> None:
        nonlocal num_calls
        async with client(served, made.client()) as standing:
            while not is_over:
                await standing.submit(fresh_command(served))
                async with client(served, made.client()) as newcomer:
                    await newcomer.run()
                num_calls += 2

    callers = [asyncio.create_task(keep_calling()) for _ in range(3)]
    shown = set()
    for number in range(20):
        certificates.swap(pairs[number % 2])
        before = num_calls
        await eventually(lambda before=before: num_calls >= before + 6 or any(caller.done() for caller in callers))
        shown.add(await shown_certificate(served))
    is_over = True
    await asyncio.gather(*callers)
    assert shown == {(made.directory / f"{name}.pem").read_text() for name in ("renewed", "server")}


async def shown_certificate(stage: Theatre) -> str:
    """What a newcomer is shown, asked of openssl, which has not to be let in for that."""
    place = stage.addresses[1].removeprefix("tls:")
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", place, "-alpn", "h2"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out = (await process.communicate())[0].decode()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    return out[out.index(begin) : out.index(end) + len(end)]


async def test_another_client_ca(served: Theatre, made: Certificates) -> None:
    """From the next connection on: clients of the old CA are kept out, those of the new one are let in."""
    certificates = served.server._certificates
    assert certificates is not None
    async with client(served, made.client()) as old:
        await old.run()
        certificates.swap(certificates.prepare(made.server("server", "other")))
        await old.run()  # a connection that stands goes on
    assert "does not know its CA" in await unreachable(served, made.client())
    async with client(served, replace(made.client("client-2"), ca=made.client().ca)) as new:
        await new.run()


async def test_a_reload_takes_all_or_nothing(served: Theatre, made: Certificates, tmp_path: Path) -> None:
    """With certificates that cannot be used nothing of the new settings comes into force."""
    settings = served.server.parts.settings
    wanted = replace(settings, control=replace(settings.control, tls_certificate=str(tmp_path / "no"), max_streams=7))
    with pytest.raises(EsperdError, match="TLS files cannot be used"):
        served.server.prepare(wanted)
    assert served.server.parts.connections.max_streams == settings.control.max_streams
    files = made.server("renewed")
    control = replace(wanted.control, tls_certificate=str(files.certificate), tls_private_key=str(files.private_key))
    served.server.prepare(replace(settings, control=control))()
    assert served.server.parts.connections.max_streams == 7
    assert await shown_certificate(served) == files.certificate.read_text()


async def test_files_that_change_on_disk(directory: Path, made: Certificates) -> None:
    """Are taken up without being asked; journal, health and log say so."""
    made.signed("moving")
    async with tls_stage(directory, made, "moving") as stage:
        watch = stage.server._certificate_watch
        assert watch is not None
        made.install("renewed", "moving")
        watch.look()
        assert await shown_certificate(stage) == (made.directory / "renewed.pem").read_text()
        (made.directory / "moving.key").unlink()
        watch.look()
        assert stage.server.parts.conditions.now.parts["tls"] is False
        async with client(stage, made.client()) as still:
            await still.run()
        await stage.server.parts.recorder.flush(5.0)
        page = await stage.journal.list_history(HistoryQuery(), 100)
        kinds = [row.record.kind for row in page.rows if isinstance(row.record, NoticeEvent)]
    assert {"tls.reloaded", "tls.refused", "tls.expiring"} <= set(kinds)


async def test_an_open_client_dials_with_new_files(directory: Path, made: Certificates) -> None:
    """Daemon and client both get certificates of another CA: the same client, and its watch, find back."""
    made.signed("mine", usage="clientAuth")
    (made.directory / "mine-ca.pem").write_bytes((made.directory / "ca.pem").read_bytes())
    files = made.client("mine", "mine-ca")
    async with tls_stage(directory, made) as stage:
        port = stage.addresses[1].rpartition(":")[2]
        policy = await client(stage, files).__aenter__()
        watch = policy.watch_server_state()
        await anext(watch)
        script = Client(stage.addresses[1], tls=files).__enter__()
        await asyncio.to_thread(script.run)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(policy)
        stack.push(script)
        stage = await stack.enter_async_context(tls_stage(directory / "b", made, "server-2", "other", port))
        with pytest.raises(Unreachable):
            await policy.run()
        made.install("client-2", "mine")
        (made.directory / "mine-ca.pem").write_bytes((made.directory / "other.pem").read_bytes())
        assert (await policy.run()).run.run_id == "run-1"
        assert (await asyncio.to_thread(script.run)).run.run_id == "run-1"
        async with asyncio.timeout(10):
            await anext(watch)
        await watch.aclose()  # type: ignore[attr-defined]  # it is a generator


async def test_esperctl_over_tls(served: Theatre, made: Certificates, tmp_path: Path) -> None:
    """With the three options, their environment, or the key file's own names, relative to it."""
    files = made.client()
    options = ["--tls-ca", files.ca, "--tls-cert", files.certificate, "--tls-key", files.private_key]
    environment = {"ESPER_TLS_CA": files.ca, "ESPER_TLS_CERT": files.certificate, "ESPER_TLS_KEY": files.private_key}
    credentials = served.credentials("operator")
    key_file = made.directory / "operator.toml"
    key_file.touch(0o600)
    key_file.write_text(
        f'key_id = "{credentials.key_id}"\nprincipal = "operator"\nsecret = "{credentials.secret.hex()}"\n'
        f'address = "{served.addresses[1]}"\nca = "ca.pem"\ncertificate = "client.pem"\nprivate_key = "client.key"\n'
    )
    address = ["-a", served.addresses[1]]
    for arguments, env in (
        ([*address, *map(str, options)], {}),
        (address, {name: str(path) for name, path in environment.items()}),
        (["--key", str(key_file)], {}),
    ):
        result = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*arguments, "status"])
        assert result.exit_code == 0, result.output
    result = await asyncio.to_thread(CliRunner().invoke, main, [*address, "--tls-ca", str(files.ca), "status"])
    assert result.exit_code == 1
    assert "E-CLI-003" in result.output
    assert "certificate and private key missing" in result.output
    result = await asyncio.to_thread(CliRunner().invoke, main, [*address, "status"])
    assert "needs a CA, a certificate and its private key" in result.output
