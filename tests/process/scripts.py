"""Runs a piece of Python in a process of its own, with a bound on its time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

SECONDS_MAX = 60

PRELUDE = """
import os, signal, sys, threading, time
import holdfast
from holdfast import DatabaseClosedError, DatabaseLockedError, DatabasePoisonedError
from holdfast import DatabaseSettings, KeyspaceSettings
path = sys.argv[1]
TINY = DatabaseSettings(
    memory_bytes=1 << 20, wal_segment_bytes=64 << 10, wal_bytes_max=256 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=16 << 10, page_bytes=512, table_bytes=16 << 10),
)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def start(body: str, path: object, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs `body` behind the prelude."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(path), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run(body: str, path: object, *arguments: object, code: int = 0) -> str:
    """Run `body` to its end and return what it printed; it must not take long or complain."""
    with start(body, path, *arguments) as process:
        try:
            out, err = process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"it hangs; it printed {out!r} and {err!r}") from None
    assert process.returncode == code, (process.returncode, out, err)
    return out
