"""Sealing or opening a piece finds no memory: MemoryError or nothing, as for plain databases.

What the library of the ciphers does without memory is its own affair; here the calls of the package
fail, each in turn.
"""

from contextlib import suppress

import pytest

from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.crypto import FileCipher
from holdfast.engine import open_database
from holdfast.env import SimEnv

KEY = bytes(range(32))
SETTINGS = DatabaseSettings(
    wal_segment_bytes=8192,
    keyspace=KeyspaceSettings(memtable_bytes=8192, page_bytes=512),
)


class Failing:
    """Lets one call in so many fail, counted from the moment it is armed."""

    def __init__(self, monkeypatch, name):
        self.left = 0
        self.struck = False
        real = getattr(FileCipher, name)

        def call(cipher, *arguments):
            if self.left:
                self.left -= 1
                if not self.left:
                    self.struck = True
                    raise MemoryError
            return real(cipher, *arguments)

        monkeypatch.setattr(FileCipher, name, call)


def steps(db):
    """(What is done, what it makes of the content): each may raise MemoryError and do nothing."""
    for number in range(12):
        key, value = b"key %02d" % number, b"x" * 900
        yield lambda key=key, value=value: db.put(key, value), {key: value}
    yield lambda: db.flush(), {}
    yield lambda: db.keyspace("other"), {}
    yield lambda: db.ingest([(b"z", b"1")]), {b"z": b"1"}
    yield lambda: db.compact(), {}


@pytest.mark.parametrize("method", ["seal_into", "open"])
@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8, 13, 21, 34, 40])
def test_a_piece_without_memory_harms_nothing(monkeypatch, method, nth):
    failing = Failing(monkeypatch, method)
    machine = SimEnv(3)
    db = open_database("/db", env=machine, key=KEY, settings=SETTINGS)
    expected = {}
    failing.left = nth
    for step, rows in steps(db):
        try:
            step()
        except MemoryError:
            continue
        expected |= rows
    failing.left = 0
    assert not db.stats().poisoned
    found = dict(db.items())
    assert found == expected
    db[b"after"] = b"1"
    assert db.verify().ok
    db.close()
    with open_database("/db", env=machine, key=KEY) as db:
        assert dict(db.items()) == expected | {b"after": b"1"}


@pytest.mark.parametrize("method", ["seal_into", "open"])
def test_an_open_without_memory_can_be_tried_again(monkeypatch, method):
    failing = Failing(monkeypatch, method)
    machine = SimEnv(4)
    db = open_database("/db", env=machine, key=KEY, settings=SETTINGS)
    for number in range(20):
        db[b"%d" % number] = b"x" * 300
    db.close()
    struck = 0
    for nth in range(1, 30):
        failing.left, failing.struck = nth, False
        with suppress(MemoryError):
            open_database("/db", env=machine, key=KEY).close()
        struck += failing.struck
        failing.left = 0
        with open_database("/db", env=machine, key=KEY) as db:
            assert len(db) == 20
    assert struck > 3


def test_a_read_without_memory_is_a_memory_error_and_no_damage(monkeypatch):
    failing = Failing(monkeypatch, "open")
    with open_database("/db", env=SimEnv(5), key=KEY, settings=SETTINGS) as db:
        db[b"k"] = b"v"
        db.flush()
        failing.left = 1
        with pytest.raises(MemoryError):
            db.get(b"k")
        assert db.get(b"k") == b"v"
