"""SQLite's file is no database any more."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx

from tests.faults.scene import Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, bearer


async def overwritten(scene: Scene) -> Tally:
    """With zeros: requests are refused, so is a start, and what is put back from a copy is exact."""
    tally = Tally("file overwritten with zeros", scene.kind)
    path = scene.folder / "disk" / "overwritten.db"
    copy = path.with_suffix(".copy")
    own = replace(scene, url=f"sqlite:///{path}", outbox="overwritten-outbox", front_ends=[])
    async with own.another() as server:
        own.front_ends = [server]
        name, key = await own.tenant("zeros")
        await own.load(tally, key, 8)
        await own.settled(tally, name)
        _copy(path, copy)
        path.write_bytes(bytes(path.stat().st_size))
        async with httpx.AsyncClient(timeout=60) as client:
            for _ in range(4):
                answer = await client.post(f"{server.url}/v1/chat/completions", json=QUESTION, headers=bearer(key))
                tally.expect(answer.status_code == 503, f"a new request got {answer.status_code}")
    serve = [sys.executable, "-m", "kinetics_serve", "serve", "--upstream", own.upstream.url, "--hardware", "b200"]
    refused = await asyncio.to_thread(
        subprocess.run, [*serve, "--port", "1", "--ledger", own.url], capture_output=True, text=True, timeout=60
    )
    tally.expect(refused.returncode == 1, f"a start ended with {refused.returncode}")
    tally.expect("Traceback" not in refused.stderr and "database" in refused.stderr, f"it said {refused.stderr:.300}")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    copy.replace(path)
    async with own.another() as server:
        own.front_ends = [server]
        await own.load(tally, key, 4)
        tally.expect(tally.answered == 12, "not all were answered afterwards")
        return await own.settled(tally, name)


def _copy(path: Path, copy: Path) -> None:
    """And leaves nothing of it in the write-ahead log."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
