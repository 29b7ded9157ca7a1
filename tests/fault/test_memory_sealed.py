"""Sealing or opening a piece finds no memory: MemoryError or nothing, as for plain databases.

What the library of the ciphers does when `malloc` fails is its own affair; here its calls fail,
each in turn, or the allocations of Python objects do.
"""

from contextlib import suppress
from types import SimpleNamespace

import pytest

from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.crypto import FileCipher, Secret, Suite, keyring
from holdfast.crypto.suite import make_aead
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.wal._unseal import open_records
from holdfast.wal.format import SEALED_MAGIC

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
            names = ("encrypt_into", "decrypt", "decrypt_into")
            calls = {each: getattr(aead, each) for each in names}
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


def without_memory(call, most):
    """Run a call with its nth allocation of an object failing, for each n below `most`; yield n,
    and what it returned or the error, with None in place of the other.
    """
    _testcapi = pytest.importorskip("_testcapi")
    for nth in range(1, most):
        answer = told = None
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            answer = call(nth)
        except MemoryError as error:
            told = error
        finally:
            _testcapi.remove_mem_hooks()
        yield nth, answer, told


def test_the_kernels_of_seals_give_what_is_right_or_a_memory_error():
    """Every allocation of an object fails once, those of the library among them."""
    cipher = FileCipher(make_aead(Suite.AES_256_GCM, Secret(KEY)), b"context", bytes)
    piece = cipher.seal(64, b"content" * 9, b"extra")
    stored = b""
    for size in range(20, 90, 10):
        fields = SEALED_MAGIC.to_bytes(4, "little") + size.to_bytes(4, "little")
        record = fields + cipher.seal(4096 + len(stored), bytes(48 + size), fields)
        stored += record.ljust(-(-len(record) // 8) * 8, b"\0")
    calls = {
        "seal": lambda _: cipher.seal(64, b"content" * 9, b"extra"),
        "open": lambda _: cipher.open(64, piece, b"extra"),
        "records": lambda _: open_records(b"front", stored, 4096, 7, 9, 8, cipher, "file"),
    }
    for name, call in calls.items():
        expected = call(0)
        told = 0
        for _, answer, error in without_memory(call, most=120):
            assert error is not None or answer == expected, name
            told += error is not None
        assert told > 5, name


def test_a_read_of_a_sealed_page_is_right_or_a_memory_error(tmp_path):
    """Each key has a page of its own, which is not in memory when it is asked for."""
    path = str(tmp_path / "db")
    values = {b"%03d" % number: b"%03d" % number * 200 for number in range(200)}
    with open_database(path, key=KEY, settings=SETTINGS) as db:
        db.put_many(values.items())
        db.flush()
    with open_database(path, key=KEY, read_only=True) as db:
        told = 0
        for nth, answer, error in without_memory(lambda nth: db.get(b"%03d" % nth), most=60):
            assert error is not None or answer == values[b"%03d" % nth]
            told += error is not None
        assert told > 5
        assert dict(db.items()) == values


def test_a_commit_that_is_sealed_happens_or_not(tmp_path):
    path = str(tmp_path / "db")
    settings = DatabaseSettings(wal_segment_bytes=1 << 20)
    expected = {}
    with open_database(path, key=KEY, settings=settings) as db:
        told = 0
        for nth, _, error in without_memory(lambda nth: db.put(b"%03d" % nth, b"v" * 50), most=90):
            found = db.get(b"%03d" % nth)
            assert found == b"v" * 50 or (error is not None and found is None)
            expected |= {} if found is None else {b"%03d" % nth: found}
            told += error is not None
        assert told > 5
        assert not db.stats().poisoned
        assert dict(db.items()) == expected
    with open_database(path, key=KEY) as db:
        assert dict(db.items()) == expected
