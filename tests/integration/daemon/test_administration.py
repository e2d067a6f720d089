"""What an administrator types at a real daemon, and what comes of it."""

import asyncio
import json

from tests.integration.daemon.conftest import StartDaemon


async def test_an_administrators_day(start_daemon: StartDaemon) -> None:
    """Look at the configuration, change it, look who is there, take a dump, and have the daemon leave."""
    daemon = start_daemon("log.format=json")
    file = daemon.folder / "esperd.toml"
    async with daemon.client() as client:
        shown = (await daemon.ctl("config", "show")).stdout
        assert 'run.task = "tiny_task:build"' in shown
        rows = (await daemon.ctl("config", "show", "--origin", "log", "run.task", "control.max_streams")).stdout
        assert len(rows.splitlines()) == 5
        assert f'run.task             "tiny_task:build"  {file}' in rows
        assert 'log.format           "json"             command line' in rows
        assert "no setting is called run.tusk" in (await daemon.ctl("config", "show", "run.tusk", code=1)).stderr

        assert "no setting has changed" in (await daemon.ctl("config", "reload")).stdout
        file.write_text(file.read_text() + "[control]\nmax_streams = 9\n[checkpoints]\nkeep = 9\n")
        done = (await daemon.ctl("config", "reload", "--reason", "more streams")).stdout
        assert done == ("applied:\n  control.max_streams: 256 -> 9\ntakes a restart:\n  checkpoints.keep: 3 -> 9\n")
        good = file.read_text()
        file.write_text(good + "nonsense = 1\n[log]\nlevel = 'loud'\n")
        refused = (await daemon.ctl("config", "reload", code=1)).stderr
        assert "nothing was applied" in refused
        assert "there is" in refused or "no key nonsense" in refused
        assert "level = 'loud' must be one of" in refused
        file.write_text(good)

        assert "the log's level is debug now; it was info" in (await daemon.ctl("log-level", "debug")).stdout
        watch = client.watch_state()
        await anext(watch)
        streams = (await daemon.ctl("connections")).stdout
        assert "WatchState" in streams
        assert json.loads((await daemon.ctl("connections", "-o", "json")).stdout)["peers"][0]["peer"] == "unix:"
        await watch.aclose()

        dump = (await daemon.ctl("diag", "dump", "--reason", "it is slow")).stdout
        for title in ("daemon", "run", "queues", "threads", "tasks", "configuration", "journal"):
            assert f"\n== {title}\n" in dump
        assert "control.max_streams = 9  # reload" in dump
        notices = (await daemon.ctl("diag", "dump", "-o", "json")).stdout
        assert json.loads(notices)["sections"][0]["title"] == "daemon"
        assert "calls and streams have 10 s to end" in (await daemon.ctl("drain", "--reason", "night")).stdout
    assert await asyncio.to_thread(daemon.wait) == 0
    for reason in ("more streams", "it is slow", "night"):
        assert f'"reason": "{reason}"' in daemon.log
    assert '"kind": "config.reloaded"' in daemon.log
