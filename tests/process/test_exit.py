"""The end of the interpreter, however it comes, neither hangs nor loses what it need not lose."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import holdfast
from tests.process.scripts import run, start

WRITE = """
database = holdfast.open(path, settings=TINY)
other = database.keyspace("other")
for number in range(200):
    database.put(b"key %03d" % number, b"x" * 100, durability="none")
    other.put(b"key %03d" % number, b"y" * 100, durability="interval")
"""

ENDS = {
    "end of the script": "",
    "sys.exit": "sys.exit(0)",
    "with an iterator and a snapshot": """
rows = database.items()
next(rows)
view = database.snapshot()
""",
    "with the handle in a cycle": "cycle = [database]; cycle.append(cycle); del database, other",
    "with a daemon thread that writes": """
def write():
    number = 0
    while True:
        number += 1
        try:
            database.put(b"thread %d" % (number % 50), b"z" * 200, durability="none")
        except DatabaseClosedError:
            return
threading.Thread(target=write, daemon=True).start()
time.sleep(0.2)
""",
    "with daemon threads that read": """
def read():
    while True:
        try:
            list(database.items())
        except DatabaseClosedError:
            return
for _ in range(3):
    threading.Thread(target=read, daemon=True).start()
time.sleep(0.1)
""",
    "with two databases": """
second = holdfast.open(path + "-2")
second.put(b"a", b"b", durability="none")
""",
    "closed by an atexit of the user": "import atexit; atexit.register(database.close)",
}


@pytest.mark.parametrize("name", ENDS)
def test_writes_without_a_sync_are_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / "db"
    run(WRITE + ENDS[name], path)
    with holdfast.open(str(path)) as database:
        assert len(list(database.items(prefix=b"key "))) == 200
        assert len(database.keyspace("other")) == 200
        assert database.verify().ok
        assert database.stats().wal_bytes < 100_000


def test_an_exception_that_ends_the_script_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    run(WRITE + "raise SystemExit(7)", path, code=7)
    with holdfast.open(str(path)) as database:
        assert len(database) == 200


def test_a_thread_that_is_in_a_commit_at_the_end(tmp_path: Path) -> None:
    """Durable commits of a daemon thread that runs until the end: what it counted is there."""
    path = tmp_path / "db"
    body = """
    database = holdfast.open(path, settings=TINY)
    def write():
        number = 0
        while True:
            try:
                database[b"count"] = b"%d" % number
            except DatabaseClosedError:
                return
            with open(path + ".acknowledged", "w") as file:
                file.write(str(number))
            number += 1
    threading.Thread(target=write, daemon=True).start()
    time.sleep(0.3)
    """
    run(body, path)
    acknowledged = int(Path(f"{path}.acknowledged").read_text() or "0")
    with holdfast.open(str(path)) as database:
        assert int(database[b"count"]) >= acknowledged


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_signals_that_end_the_process_lose_nothing_durable(tmp_path: Path, number: int) -> None:
    path = tmp_path / "db"
    body = """
    database = holdfast.open(path, settings=TINY)
    number = 0
    while True:
        database[b"key %06d" % number] = b"x" * 50
        print(number, flush=True)
        number += 1
    """
    with start(body, path) as process:
        for _ in range(50):
            process.stdout.readline()
        process.send_signal(number)
        # Not communicate(): it forgets what readline() has read ahead.
        out = process.stdout.read()
        process.wait(60)
    lines = out.split("\n")[:-1]
    acknowledged = int(lines[-1]) if lines else 49
    with holdfast.open(str(path)) as database:
        assert len(database) in (acknowledged + 1, acknowledged + 2)
        assert database.verify().ok


def test_the_worker_threads_of_the_engine_do_not_keep_the_process(tmp_path: Path) -> None:
    run(
        """
        import atexit
        database = holdfast.open(path, settings=TINY)
        for number in range(3000):
            database.put(b"key %05d" % (number * 7919 % 3000), b"x" * 200, durability="none")
        """,
        tmp_path / "db",
    )
    with holdfast.open(str(tmp_path / "db")) as database:
        assert len(database) == 3000
