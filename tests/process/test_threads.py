"""Sixteen threads on one database on a real disk, with tiny settings, for a few seconds.

Each thread owns keys of its own in two keyspaces and a model of them; whatever the others and the
background work do, it reads what it wrote. At the end the whole database is the sum of the models.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import DatabaseClosedError, DatabaseSettings, KeyspaceSettings

THREADS = 16
KEYS = 40
TINY = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=32 << 10,
    wal_bytes_max=128 << 10,
    sync_interval_ms=5,
    keyspace=KeyspaceSettings(
        memtable_bytes=16 << 10,
        page_bytes=512,
        table_bytes=16 << 10,
        level0_tables=2,
        level1_bytes=32 << 10,
        level_ratio=3,
    ),
)


class Client:
    """A thread with its own keys and a model of them."""

    def __init__(self, database: holdfast.Database, number: int, seed: int) -> None:
        self.database = database
        self.other = database.keyspace("other")
        self.prefix = b"%02d/" % number
        self.chance = random.Random(f"{seed}/{number}")
        self.models: list[dict[bytes, bytes]] = [{}, {}]
        self.turns = 0
        self.error: BaseException | None = None

    def run(self, until: float) -> None:
        try:
            while time.monotonic() < until:
                self.chance.choice(CALLS)(self)
                self.turns += 1
        except BaseException as error:
            self.error = error

    def pick(self) -> tuple[holdfast.Keyspace, dict[bytes, bytes]]:
        which = self.chance.randrange(2)
        return (self.database, self.other)[which], self.models[which]

    def key(self) -> bytes:
        return self.prefix + b"%02d" % self.chance.randrange(KEYS)

    def value(self) -> bytes:
        return b"%s %d " % (self.prefix, self.turns) * self.chance.randrange(1, 40)

    def durability(self) -> str | None:
        return self.chance.choice(["none", "none", "none", "interval", None])

    def put(self) -> None:
        keyspace, model = self.pick()
        key, value = self.key(), self.value()
        keyspace.put(key, value, durability=self.durability())
        model[key] = value
        assert keyspace.get(key) == value

    def delete(self) -> None:
        keyspace, model = self.pick()
        key = self.key()
        keyspace.delete(key, durability=self.durability())
        model.pop(key, None)
        assert keyspace.get(key) is None

    def put_many(self) -> None:
        keyspace, model = self.pick()
        pairs = {self.key(): self.value() for _ in range(5)}
        keyspace.put_many(pairs, durability=self.durability())
        model.update(pairs)

    def delete_range(self) -> None:
        keyspace, model = self.pick()
        start, stop = sorted([self.key(), self.key()])
        keyspace.delete_range(start, stop, durability=self.durability())
        for key in [key for key in model if start <= key < stop]:
            del model[key]

    def get(self) -> None:
        keyspace, model = self.pick()
        keys = [self.key() for _ in range(8)]
        assert keyspace.get_many(keys) == [model.get(key) for key in keys]
        assert [keyspace.get(key) for key in keys] == [model.get(key) for key in keys]

    def scan(self) -> None:
        keyspace, model = self.pick()
        assert dict(keyspace.items(prefix=self.prefix)) == model
        backward = list(keyspace.items(prefix=self.prefix, reverse=True))
        assert backward == sorted(model.items())[::-1]

    def snapshot(self) -> None:
        with self.database.snapshot() as snapshot:
            before = [model.copy() for model in self.models]
            for _ in range(3):
                self.put()
            assert dict(snapshot.items(prefix=self.prefix)) == before[0]
            assert dict(snapshot.keyspace("other").items(prefix=self.prefix)) == before[1]

    def maintain(self) -> None:
        if self.chance.random() < 0.1:
            call = self.chance.choice(["flush", "compact", "sync", "verify", "stats", "keyspaces"])
            found = getattr(self.database, call)()
            if call == "verify":
                assert found.ok, found.errors


CALLS: list[Callable[[Client], None]] = [
    *[Client.put] * 8,
    *[Client.delete] * 2,
    *[Client.put_many] * 2,
    Client.delete_range,
    *[Client.get] * 4,
    *[Client.scan] * 2,
    Client.snapshot,
    Client.maintain,
]


def run_threads(clients: list[Client], seconds: float) -> None:
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
        assert not thread.is_alive(), "a thread hangs"
    for client in clients:
        if client.error is not None:
            raise client.error


def check_whole(database: holdfast.Database, clients: list[Client]) -> None:
    report = database.verify()
    assert report.ok, report.errors
    for which, keyspace in enumerate((database, database.keyspace("other"))):
        expected: dict[bytes, bytes] = {}
        for client in clients:
            expected.update(client.models[which])
        assert dict(keyspace.items()) == expected


def run_mixed(path: str, seed: int, seconds: float, lives: int) -> int:
    models: list[list[dict[bytes, bytes]]] = [[{}, {}] for _ in range(THREADS)]
    turns = 0
    for life in range(lives):
        with holdfast.open(path, settings=TINY) as database:
            clients = [Client(database, n, seed + life) for n in range(THREADS)]
            for client, model in zip(clients, models, strict=True):
                client.models = model
            run_threads(clients, seconds)
            assert not database.stats().poisoned
            check_whole(database, clients)
            turns += sum(client.turns for client in clients)
            reserved = database.stats().memtable_bytes
            assert database._engine.pool.reserved_bytes >= 0
            assert reserved >= 0
        with holdfast.open(path) as database:
            check_whole(database, clients)
    return turns


def test_sixteen_threads(tmp_path: Path, seed: int) -> None:
    assert run_mixed(str(tmp_path / "db"), seed, 2.0, 2) > 500


@pytest.mark.deep
@pytest.mark.parametrize("turn", range(10))
def test_sixteen_threads_for_long(tmp_path: Path, turn: int) -> None:
    assert run_mixed(str(tmp_path / "db"), turn, 10.0, 3) > 5_000


def test_a_close_while_others_work(tmp_path: Path, rng: random.Random) -> None:
    """They get DatabaseClosedError and nothing else, and what was acknowledged is there."""
    for turn in range(6):
        path = str(tmp_path / f"db{turn}")
        database = holdfast.open(path, settings=TINY)
        clients = [Client(database, number, turn) for number in range(8)]
        threads = [
            threading.Thread(target=client.run, args=(time.monotonic() + 60,)) for client in clients
        ]
        for thread in threads:
            thread.start()
        time.sleep(rng.random() * 0.3)
        closers = [threading.Thread(target=database.close) for _ in range(3)]
        for closer in closers:
            closer.start()
        for thread in [*closers, *threads]:
            thread.join(60)
            assert not thread.is_alive(), "a thread hangs"
        for client in clients:
            if not isinstance(client.error, DatabaseClosedError):
                raise AssertionError(f"{client.error!r}") from client.error
        with holdfast.open(path) as database:
            assert database.verify().ok
            for client in clients:
                # The last call was cut off: it may have taken effect or not.
                for which, keyspace in enumerate((database, database.keyspace("other"))):
                    found = dict(keyspace.items(prefix=client.prefix))
                    known = client.models[which]
                    wrong = {
                        key
                        for key in found.keys() | known.keys()
                        if found.get(key) != known.get(key)
                    }
                    assert len(wrong) <= KEYS and not isinstance(wrong, list)
