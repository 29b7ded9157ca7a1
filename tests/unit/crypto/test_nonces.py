"""No nonce is used twice under one key: every pair is counted, over all that may make it repeat.

Only real randomness is asked here: simulated machines draw the same numbers in each of their
alternative lives. The trial that chooses a suite is left out; its key is zeros, and it hides
nothing.
"""

import errno
import os
import pickle
import shutil
from collections import Counter
from contextlib import suppress

import pytest

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.crypto import FileKind, KeyRing, KeySource, keyfile, keyring
from holdfast.engine import open_database
from holdfast.env import FaultEnv, FaultRule, PosixEnv

KEY = bytes(range(32))
SMALL = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=16 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=16 << 10, page_bytes=1024, table_bytes=16 << 10),
)


class Monitor:
    """Counts the pairs of key and nonce of every piece that is sealed."""

    def __init__(self, monkeypatch):
        self.pairs = Counter()
        real = keyring.make_aead
        for module in (keyring, keyfile):
            monkeypatch.setattr(
                module, "make_aead", lambda suite, key: _Counted(self, real, suite, key)
            )

    def check(self, least):
        assert sum(self.pairs.values()) >= least
        repeated = [pair for pair, count in self.pairs.items() if count > 1]
        assert not repeated, f"{len(repeated)} of {len(self.pairs)} pairs were used again"

    @property
    def keys(self):
        return {key for key, _ in self.pairs}


class _Counted:
    def __init__(self, monitor, real, suite, key):
        self._pairs = monitor.pairs
        self._key = key.reveal()
        self._aead = real(suite, key)

    def encrypt_into(self, nonce, data, associated, buffer):
        self._pairs[self._key, bytes(nonce)] += 1
        return self._aead.encrypt_into(nonce, data, associated, buffer)

    def decrypt(self, nonce, data, associated):
        return self._aead.decrypt(nonce, data, associated)

    def decrypt_into(self, nonce, data, associated, buffer):
        return self._aead.decrypt_into(nonce, data, associated, buffer)


@pytest.fixture
def monitor(monkeypatch):
    return Monitor(monkeypatch)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


def work(db, count=150):
    """Durable commits, flushes, new segments, edits and a compaction."""
    for number in range(count):
        db.put(b"key %d" % (number % 40), os.urandom(200), durability="none")
        if number % 10 == 0:
            db[b"durable"] = b"%d" % number
    db.flush()
    db.compact()
    db.keyspace("other").ingest((b"%06d" % n, b"x" * 50) for n in range(200))


def opened(path, env=None, **named):
    return open_database(path, key=KEY, env=env, settings=named.pop("settings", None), **named)


def crashed(path, target):
    """A copy of the folder as it lies there, while it is open."""
    while True:
        try:
            shutil.copytree(path, target)
        except shutil.Error:
            # A compaction took a file away meanwhile.
            shutil.rmtree(target)
        else:
            return target


def test_one_life(path, monitor):
    with opened(path, settings=SMALL) as db:
        work(db)
    monitor.check(100)
    assert len(monitor.keys) > 10


def test_crash_torn_tail_and_reopen(path, monitor):
    """The end of the log and of the manifest are torn, and the next life goes on from there."""
    with opened(path, settings=SMALL) as db:
        work(db)
        db[b"last"] = b"1"
        last = crashed(path, f"{path}-0")
    for life in range(4):
        for name in os.listdir(last):
            if name.endswith(".wal"):
                with open(f"{last}/{name}", "r+b") as file:
                    end = len(file.read().rstrip(b"\0"))
                    file.seek(max(end - 20, 0))
                    file.write(bytes(20))
        with opened(last) as db:
            work(db, 60)
            db[b"last"] = b"%d" % life
            last = crashed(last, f"{path}-{life + 1}")
    monitor.check(300)


def test_copy_clone_and_restore(path, monitor):
    """Both copies of a folder go on, and an old copy is put back and goes on, too."""
    with opened(path, settings=SMALL) as db:
        work(db)
        crashed(path, f"{path}-backup")
    for folder in (path, crashed(path, f"{path}-clone"), crashed(f"{path}-backup", f"{path}-back")):
        for _ in range(2):
            with opened(folder) as db:
                work(db, 60)
    monitor.check(400)


def test_records_that_were_refused_and_replaced(path, monitor):
    """A full disk: another record takes the place, with another nonce at the same offset."""
    fault = FaultEnv(PosixEnv())
    with opened(path, env=fault, settings=SMALL) as db:
        for number in range(20):
            fault.add(FaultRule(site="wal.record.write", error=errno.ENOSPC, partial=50))
            with pytest.raises(holdfast.DiskFullError):
                db[b"refused %d" % number] = os.urandom(30)
            fault.clear()
            db[b"k"] = os.urandom(30)
        edit = FaultRule(site="manifest.edit.write", error=errno.ENOSPC, partial=30)
        for number in range(3):
            fault.add(edit)
            with pytest.raises(holdfast.DiskFullError):
                db.keyspace(f"refused {number}")
            fault.clear()
            db.keyspace(f"there {number}")
    monitor.check(46)


def test_changed_keys(path, monitor):
    with opened(path, settings=SMALL) as db:
        work(db)
        for number in range(3):
            db.rekey(bytes([number] * 32), rewrite=True)
            work(db, 60)
        db.rekey(KEY)
    with opened(path) as db:
        work(db, 60)
    monitor.check(400)


def test_a_forked_child_that_opens_a_clone(path, monitor, tmp_path):
    """The child has the memory of its parent, and a copy of the folder."""
    db = opened(path, settings=SMALL)
    work(db, 60)
    crashed(path, f"{path}-clone")
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            monitor.pairs.clear()
            with opened(f"{path}-clone") as clone:
                work(clone, 60)
            (tmp_path / "pairs").write_bytes(pickle.dumps(dict(monitor.pairs)))
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    work(db, 60)
    db.close()
    monitor.pairs.update(pickle.loads((tmp_path / "pairs").read_bytes()))
    monitor.check(150)


def test_a_machine_that_is_resumed_twice_from_one_memory(monitor, tmp_path):
    """A fork stands for the copied memory: both go on with the same open file, at the same offsets,
    with other content.
    """
    folder = str(tmp_path)
    _, cipher = KeyRing.create(PosixEnv(), folder, KeySource(KEY)).new_file(FileKind.LOG)
    cipher.seal(0, b"before", b"")
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            monitor.pairs.clear()
            for number in range(1000):
                cipher.seal(8 * number, b"of the child", b"")
            (tmp_path / "pairs").write_bytes(pickle.dumps(dict(monitor.pairs)))
            status = 0
        os._exit(status)
    for number in range(1000):
        cipher.seal(8 * number, b"of the parent", b"")
    assert os.waitpid(child, 0)[1] == 0
    monitor.pairs.update(pickle.loads((tmp_path / "pairs").read_bytes()))
    monitor.check(2002)


def test_the_offset_alone_keeps_nonces_apart_within_a_file(monitor, tmp_path):
    """Though every random number were the same."""

    class Stuck(PosixEnv):
        def random_bytes(self, count):
            return bytes(count)

    ring = KeyRing.create(Stuck(), str(tmp_path), KeySource(KEY))
    _, cipher = ring.new_file(FileKind.TABLE)
    for number in range(5000):
        cipher.seal(8 * number, b"page", b"")
    monitor.check(5001)


def test_the_monitor_would_notice(monitor, tmp_path):
    class Stuck(PosixEnv):
        def random_bytes(self, count):
            return bytes(count)

    _, cipher = KeyRing.create(Stuck(), str(tmp_path), KeySource(KEY)).new_file(FileKind.LOG)
    cipher.seal(8, b"one", b"")
    cipher.seal(8, b"two", b"")
    with pytest.raises(AssertionError, match="used again"):
        monitor.check(1)
