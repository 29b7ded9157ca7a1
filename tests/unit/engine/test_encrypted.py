"""Databases with a key: who may open them, what their files show, and that all else is as ever."""

import asyncio
import os
import shutil
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

import holdfast
import holdfast.aio
from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.crypto import KeyRing, KeySource, SealedEnv
from holdfast.engine import open_database
from holdfast.env import PosixEnv, SimEnv
from holdfast.recovery import check_folder

KEY = bytes(range(32))
OTHER = bytes(32)
SMALL = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=64 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=64 << 10, page_bytes=1024, table_bytes=64 << 10),
)


def fill(db, count=2000, word=b"plaintext"):
    for number in range(count):
        db.put(b"%s key %06d" % (word, number), b"%s value %d" % (word, number), durability="none")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


@pytest.mark.parametrize(
    "key", [KEY, "a passphrase", lambda wrapped: KEY if wrapped else (KEY, b"w")]
)
def test_what_was_written_with_a_key_is_read_with_it(path, key):
    with holdfast.open(path, key=key) as db:
        db[b"k"] = b"v"
    with holdfast.open(path, key=key) as db:
        assert db[b"k"] == b"v"
    with holdfast.open(path, key=key, read_only=True) as db:
        assert dict(db.items()) == {b"k": b"v"}


@pytest.mark.parametrize("read_only", [False, True])
def test_without_its_key_an_encrypted_database_is_a_wrong_key(path, read_only):
    holdfast.open(path, key=KEY).close()
    before = sorted(os.listdir(path))
    for key in (None, OTHER, "words", lambda wrapped: OTHER):
        with pytest.raises(holdfast.WrongKeyError):
            holdfast.open(path, key=key, read_only=read_only)
    assert sorted(os.listdir(path)) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_key_for_a_plain_database_is_a_wrong_key(path, read_only):
    holdfast.open(path).close()
    with pytest.raises(holdfast.WrongKeyError, match="not encrypted"):
        holdfast.open(path, key=KEY, read_only=read_only)
    with holdfast.open(path) as db:
        assert len(db) == 0


def test_a_folder_that_is_not_there_is_not_made_to_find_out(path):
    with pytest.raises(FileNotFoundError):
        holdfast.open(path, key=KEY, create=False)
    with pytest.raises(FileNotFoundError):
        holdfast.open(path, key=KEY, read_only=True)
    assert not os.path.exists(path)


def test_a_missing_key_file_is_damage_and_not_a_plain_database(path):
    holdfast.open(path, key=KEY).close()
    os.unlink(f"{path}/KEYS.1")
    for key in (None, KEY):
        with pytest.raises(holdfast.CorruptionError, match="key file is missing"):
            holdfast.open(path, key=key)
    assert not check_folder(PosixEnv(), path).ok


def test_a_damaged_key_file_is_damage_and_not_a_wrong_key(path):
    holdfast.open(path, key=KEY).close()
    with open(f"{path}/KEYS.1", "r+b") as file:
        file.seek(100)
        file.write(b"?")
    with pytest.raises(holdfast.CorruptionError):
        holdfast.open(path, key=KEY)
    assert not check_folder(PosixEnv(), path, source=KeySource(KEY)).ok


@pytest.mark.parametrize("torn", [True, False])
def test_a_creation_that_was_cut_off_goes_on_with_its_keys(path, torn):
    os.mkdir(path)
    KeyRing.create(PosixEnv(), path, KeySource(KEY))
    if torn:
        os.truncate(f"{path}/KEYS.1", 60)
    for arguments in ({"create": False}, {"read_only": True}):
        with pytest.raises(FileNotFoundError):
            holdfast.open(path, key=KEY, **arguments)
    if torn:
        assert not Path(path, "CURRENT.1.1").exists()
    else:
        with pytest.raises(holdfast.WrongKeyError):
            holdfast.open(path, key=OTHER)
    with holdfast.open(path, key=KEY) as db:
        db[b"k"] = b"v"
    with holdfast.open(path, key=KEY) as db:
        assert db[b"k"] == b"v"


def files_of(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


WORDS = (b"plaintext", b"hidden-space", b"page_bytes", b"default", b"memory_bytes")
"""Long enough to stand nowhere by chance."""


def test_no_file_shows_a_word_of_what_is_in_it(path):
    """Tables of all levels, the log, the manifest, files of an ingest and published figures, while
    the database is open and after a crash and a close.
    """
    settings = DatabaseSettings(
        publish="always",
        keyspace=KeyspaceSettings(
            compression="none", compression_last="none", memtable_bytes=65536, level0_tables=32
        ),
    )
    db = holdfast.open(path, key=KEY, settings=settings)
    space = db.keyspace("hidden-space")
    fill(db)
    fill(space)
    space.ingest((b"plaintext %06d" % n, b"plaintext") for n in range(500))
    db.delete_range(b"plaintext key 000100", b"plaintext key 000200")
    db.flush()
    fill(db, 50)
    db[b"plaintext"] = b"plaintext"
    shown = [files_of(path)]
    shutil.copytree(path, f"{path}-crashed")
    db.compact()
    shown.append(files_of(path))
    db.close()
    shown.append(files_of(path))
    holdfast.open(f"{path}-crashed", key=KEY).close()
    shown.append(files_of(f"{path}-crashed"))
    kinds = {name.rpartition(".")[2] for files in shown for name in files}
    assert {"table", "wal", "manifest"} <= kinds
    for files in shown:
        for name, data in files.items():
            for word in WORDS:
                assert word not in data, (name, word)


def test_the_same_search_finds_the_words_in_a_plain_database(path):
    settings = DatabaseSettings(keyspace=KeyspaceSettings(compression="none"))
    with holdfast.open(path, settings=settings) as db:
        fill(db)
    everything = b"".join(files_of(path).values())
    assert all(word in everything for word in (b"plaintext", b"page_bytes", b"default"))


def test_everything_works_as_without_a_key(path):
    """One run of all that writes files, compared with the same run of a plain database."""

    def work(db):
        space = db.keyspace("other")
        fill(db, 3000)
        space.ingest((b"i%06d" % n, b"x" * 40) for n in range(3000))
        db.delete_range(b"plaintext key 000500", b"plaintext key 000900")
        db.flush()
        with db.transaction() as txn:
            txn[b"t"] = b"1"
            txn.keyspace("other")[b"t"] = b"2"
        db.compact()
        fill(db, 500, b"again")
        assert db.verify().ok
        return dict(db.items()), dict(space.items())

    with holdfast.open(path, key=KEY, settings=SMALL) as db:
        expected = work(db)
    with holdfast.open(f"{path}-plain", settings=SMALL) as db:
        assert work(db) == expected
    with holdfast.open(path, key=KEY) as db:
        assert (dict(db.items()), dict(db.keyspace("other").items())) == expected
        assert db.verify().ok
    report = check_folder(PosixEnv(), path, source=KeySource(KEY))
    assert report.ok and report.tables > 2


def test_a_feed_of_changes_reads_sealed_segments_across_lives(path):
    settings = DatabaseSettings(wal_keep_bytes=10 << 20, wal_segment_bytes=64 << 10)
    written = 0
    for life in range(3):
        with holdfast.open(path, key=KEY, settings=settings) as db:
            for number in range(300):
                db.put(b"%d %d" % (life, number), bytes(300), durability="none")
            db[b"end"] = b"%d" % life
            written += 301
            changes = [
                operation for change in db.changes(since=0) for operation in change.operations
            ]
            assert len(changes) == written


@pytest.mark.parametrize("alignment", [8, 512, 4096])
def test_every_alignment_of_the_log(path, alignment):
    settings = DatabaseSettings(wal_alignment_bytes=alignment, wal_segment_bytes=64 << 10)
    with holdfast.open(path, key=KEY, settings=settings) as db:
        for number in range(100):
            db[b"%d" % number] = bytes(number * 20)
        shutil.copytree(path, f"{path}-crashed")
    for folder in (path, f"{path}-crashed"):
        with holdfast.open(folder, key=KEY) as db:
            assert len(db) == 100


def test_a_key_is_in_no_traceback(path):
    holdfast.open(path, key=KEY).close()
    secret = bytes(range(200, 232))

    def shown(error):
        text = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
        # The frames of this test know the key; those of the package must not.
        frames = text.split("  File ")
        return "".join(frame for frame in frames if "holdfast" in frame.splitlines()[0])

    with pytest.raises(holdfast.WrongKeyError) as caught:
        holdfast.open(path, key=secret)
    assert repr(secret) not in shown(caught.value)

    async def opened():
        await holdfast.aio.open(path, key=secret)

    with pytest.raises(holdfast.WrongKeyError) as caught:
        asyncio.run(opened())
    assert repr(secret) not in shown(caught.value)
    with pytest.raises(holdfast.WrongKeyError) as caught:
        holdfast.open(path, key="the words of a passphrase")
    assert "the words of" not in shown(caught.value)


def test_with_await(path):
    async def run():
        async with await holdfast.aio.open(path, key=KEY) as db:
            await db.put(b"k", b"v")
        with pytest.raises(holdfast.WrongKeyError):
            await holdfast.aio.open(path)

    asyncio.run(run())
    with holdfast.open(path, key=KEY) as db:
        assert db[b"k"] == b"v"


def test_a_plain_database_never_loads_the_library(tmp_path):
    script = (
        "import sys, holdfast\n"
        f"holdfast.open({str(tmp_path / 'p')!r})[b'k'] = b'v'\n"
        "assert not any(name.startswith('cryptography') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_the_library_a_key_says_what_to_install(path):
    script = (
        "import sys, holdfast\n"
        "sys.modules['cryptography'] = None\n"
        "try:\n"
        f"    holdfast.open({path!r}, key=bytes(32))\n"
        "except ModuleNotFoundError as error:\n"
        "    assert 'pip install cryptography' in str(error)\n"
        "else:\n"
        "    raise SystemExit('opened')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_forked_child_writes_nothing_under_the_keys_of_its_parent(path):
    db = holdfast.open(path, key=KEY)
    db[b"k"] = b"v"
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            try:
                db[b"k"] = b"of the child"
            except holdfast.DatabaseClosedError:
                status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    db[b"l"] = b"w"
    db.close()
    with holdfast.open(path, key=KEY) as db:
        assert dict(db.items()) == {b"k": b"v", b"l": b"w"}


def test_the_env_is_sealed_only_with_a_key():
    env = SimEnv()
    with open_database("/db", env=env, key=KEY) as db:
        assert isinstance(db._engine.env, SealedEnv)
    with open_database("/plain", env=env) as db:
        assert db._engine.env is env
