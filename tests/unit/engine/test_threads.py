"""Goal: threads of the operating system lose and mix up nothing, on either twin.

Method: the interpreter switches threads as often as it can while several write, read, flush and
compact; each writes keys of its own, so it knows what it must read.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.base import PURE
from holdfast.engine import Database, open_database
from tests.model.strategies import tiny

WRITERS, ROUNDS = 4, 100 if PURE else 300


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_threads(*functions: Callable[[], None]) -> None:
    """Run functions at the same time; raises what one of them raised."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                function()
            except BaseException as error:  # the test raises it below
                errors.append(error)

        return run

    threads = [threading.Thread(target=guarded(function)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    for error in errors:
        raise error


@pytest.mark.parametrize("durabilities", [("none",), ("none", "none", "commit", "interval")])
def test_every_thread_reads_what_it_wrote(tmp_path: Path, durabilities: tuple[str, ...]) -> None:
    settings = tiny(memtable_bytes=32 << 10, memory_bytes=8 << 20)
    database = open_database(tmp_path / "db", settings=settings)
    expected: dict[bytes, bytes] = {}

    def write(thread: int) -> Callable[[], None]:
        def run() -> None:
            mine: dict[bytes, bytes] = {}
            for number in range(ROUNDS):
                key = b"%d-%02d" % (thread, number % 30)
                # Most writes are not synced: these are the ones that need no group.
                how = durabilities[number % 8 if number % 8 < len(durabilities) else 0]
                mine[key] = b"%d" % number + b"x" * 100
                database.put(key, mine[key], durability=how)
                assert mine[key] == database.get(key)
                if number % 20 == 0:
                    assert mine == dict(database.items(prefix=b"%d-" % thread))
            expected.update(mine)

        return run

    run_threads(*[write(thread) for thread in range(WRITERS)])
    check(database, tmp_path, expected, WRITERS * ROUNDS)


def test_batches_stay_whole_while_tables_come_and_go(tmp_path: Path) -> None:
    database = open_database(tmp_path / "db", settings=tiny())
    running = WRITERS
    keys = [b"%02d" % number for number in range(20)]

    def write(thread: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal running
            for number in range(ROUNDS // 10):
                content = b"%d-%d" % (thread, number) + b"x" * 60
                database.put_many([(key, content) for key in keys], durability="none")
            running -= 1

        return run

    def read() -> None:
        while running:
            assert len(set(database.values())) <= 1
            assert len(set(database.values(reverse=True))) <= 1
            with database.snapshot() as snapshot:
                first = snapshot.get_many(keys)
                assert 1 == len(set(first))
                assert first == snapshot.get_many(keys)

    def keep_up() -> None:
        while running:
            database.flush()
            database.compact()

    run_threads(*[write(thread) for thread in range(WRITERS)], read, read, keep_up)
    check(database, tmp_path, dict(database.items()), WRITERS * (ROUNDS // 10) * len(keys))


def check(database: Database, folder: Path, expected: dict[bytes, bytes], writes: int) -> None:
    """Compare the content now and after another open, and the count of operations."""
    assert expected == dict(database.items())
    assert writes == database.stats().writes == database.stats().last_seq
    assert database.verify().ok
    database.close()
    with open_database(folder / "db") as again:
        assert expected == dict(again.items())
        assert writes == again.stats().last_seq
