"""What an open does to key files that it does not use."""

import os
from pathlib import Path

import pytest

import holdfast
from holdfast.crypto import KeyRing, KeySource, key_files
from holdfast.engine import open_database
from holdfast.env import FaultEnv, FaultRule, PosixEnv, SimEnv

KEY = bytes(range(32))


def flip(env, path):
    """Change a byte in the middle of a file, in place of a disk that does."""
    file = env.open(path)
    data = bytearray(file.read_at(0, file.size()))
    file.close()
    data[len(data) // 2] ^= 1
    env.unlink(path, site="test")
    file = env.create(path, site="test")
    file.write_at(0, data, site="test")
    file.sync(site="test")
    file.close()


def test_a_damaged_key_file_that_a_file_needs_is_kept():
    """A new epoch began, the older key file could not be removed, and the newer one cannot be read
    now. It may be read again, or be mended, and nothing else opens the new files.
    """
    env = SimEnv(3)
    fault = FaultEnv(env)
    db = open_database("/db", env=fault, key=KEY)
    fault.add(FaultRule(site="keys.obsolete.unlink"))
    db.rekey(KEY)
    db[b"k"] = b"v"
    db.close()
    newer = f"/db/KEYS.{key_files(env, '/db')[-1]}"
    before = env.list_dir("/db")
    flip(env, newer)
    for _ in range(2):
        with pytest.raises(holdfast.CorruptionError, match="files need its keys") as caught:
            open_database("/db", env=env, key=KEY)
        assert caught.value.file == newer
        assert env.list_dir("/db") == before
    flip(env, newer)
    with open_database("/db", env=env, key=KEY) as db:
        assert db[b"k"] == b"v"
    assert len(key_files(env, "/db")) == 1


def test_a_torn_key_file_that_no_file_needs_is_removed(tmp_path):
    path = str(tmp_path / "db")
    with holdfast.open(path, key=KEY) as db:
        db[b"k"] = b"v"
    Path(path, "KEYS.7").write_bytes(b"torn")
    with holdfast.open(path, key=KEY) as db:
        assert db[b"k"] == b"v"
    assert len(key_files(PosixEnv(), path)) == 1


def test_a_torn_key_file_of_a_creation_is_removed_by_the_next_one(tmp_path):
    path = str(tmp_path / "db")
    os.mkdir(path)
    Path(path, "KEYS.1").write_bytes(b"torn")
    holdfast.open(path, key=KEY).close()
    assert key_files(PosixEnv(), path) == [2]


def test_a_copy_of_the_key_file_can_be_put_back_as_long_as_no_key_was_changed(tmp_path):
    path = tmp_path / "db"
    holdfast.open(str(path), key=KEY).close()
    (name,) = [f"KEYS.{number}" for number in key_files(PosixEnv(), str(path))]
    copy = (path / name).read_bytes()
    for number in range(3):
        with holdfast.open(str(path), key=KEY) as db:
            db[b"%d" % number] = b"v"
    for lost in path.glob("KEYS.*"):
        lost.unlink()
    (path / name).write_bytes(copy)
    with holdfast.open(str(path), key=KEY) as db:
        assert list(db) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("also", ["CURRENT.*", "*.manifest", "*.wal", "*.table"])
@pytest.mark.parametrize("key", [None, KEY])
def test_without_a_key_file_sealed_files_are_damage_whatever_else_is_missing(tmp_path, also, key):
    """They are no plain database that a key was given for by mistake."""
    path = tmp_path / "db"
    with holdfast.open(str(path), key=KEY) as db:
        db[b"k"] = b"v"
        db.flush()
    for name in (*path.glob("KEYS.*"), *path.glob(also)):
        name.unlink()
    with pytest.raises(holdfast.CorruptionError, match="its key file is missing"):
        holdfast.open(str(path), key=key)


def test_behind_the_last_number_no_key_file_is_written(tmp_path):
    """It would have a name that no open takes for a key file, and the others would be removed."""
    path = str(tmp_path / "db")
    with holdfast.open(path, key=KEY) as db:
        db[b"k"] = b"v"
    planted = Path(path, "KEYS." + "9" * 19)
    planted.write_bytes(b"planted")
    with pytest.raises(holdfast.LimitError):
        holdfast.open(path, key=KEY)
    with holdfast.open(path, key=KEY, read_only=True) as db:
        assert db[b"k"] == b"v"
    planted.unlink()
    assert KeyRing.load(PosixEnv(), path, KeySource(KEY)).epochs == (1,)
    with holdfast.open(path, key=KEY) as db:
        assert db[b"k"] == b"v"


def test_an_open_that_drops_old_keys_asks_a_callable_for_no_new_one(tmp_path):
    """Whoever may unwrap a key may not be allowed to make one."""
    path = str(tmp_path / "db")
    asked = []

    def unwrap(wrapped):
        asked.append(wrapped)
        return KEY if wrapped else (KEY, b"wrapped")

    with holdfast.open(path, key=unwrap) as db:
        db[b"k"] = b"v"
        db.rekey(unwrap, rewrite=True)
    asked.clear()
    with holdfast.open(path, key=unwrap) as db:
        assert db[b"k"] == b"v"
    assert asked == [b"wrapped"]
    assert KeyRing.load(PosixEnv(), path, KeySource(unwrap)).epochs == (2,)
