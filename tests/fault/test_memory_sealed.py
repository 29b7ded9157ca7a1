"""Sealing or opening a piece finds no memory: MemoryError or nothing, as for plain databases.

What the library of the ciphers does without memory is its own affair; here its calls fail, each in
turn.
"""

from contextlib import suppress
from types import SimpleNamespace

import pytest

from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.crypto import keyring
from holdfast.engine import open_database
from holdfast.env import SimEnv

KEY = bytes(range(32))
SETTINGS = DatabaseSettings(
    wal_segment_bytes=8192,
    keyspace=KeyspaceSettings(memtable_bytes=8192, page_bytes=512),
)


class Failing:
    """Lets one call of the ciphers in so many fail, counted from the moment it is armed."""

    def __init__(self, monkeypatch, name):
        self.left = 0
        self.struck = False
        real = keyring.make_aead

        def make(suite, key):
            aead = real(suite, key)
            calls = {each: getattr(aead, each) for each in ("encrypt_into", "decrypt")}
            calls[name] = self._counted(calls[name])
            return SimpleNamespace(**calls)

        monkeypatch.setattr(keyring, "make_aead", make)

    def _counted(self, real):
        def call(*arguments):
            if self.left:
                self.left -= 1
                if not self.left:
                    self.struck = True
                    raise MemoryError
            return real(*arguments)

        return call


def steps(db):
    """(What is done, what it makes of the content): each may raise MemoryError and do nothing."""
    for number in range(12):
        key, value = b"key %02d" % number, b"x" * 900
        yield lambda key=key, value=value: db.put(key, value), {key: value}
    yield lambda: db.flush(), {}
    yield lambda: db.keyspace("other"), {}
    yield lambda: db.ingest([(b"z", b"1")]), {b"z": b"1"}
    yield lambda: db.compact(), {}


@pytest.mark.parametrize("method", ["encrypt_into", "decrypt"])
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


@pytest.mark.parametrize("method", ["encrypt_into", "decrypt"])
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
    failing = Failing(monkeypatch, "decrypt")
    with open_database("/db", env=SimEnv(5), key=KEY, settings=SETTINGS) as db:
        db[b"k"] = b"v"
        db.flush()
        failing.left = 1
        with pytest.raises(MemoryError):
            db.get(b"k")
        assert db.get(b"k") == b"v"
