"""Which env a database is opened with, what becomes of old keys, and what a root is made of."""

from __future__ import annotations

import hashlib
from struct import pack
from typing import Any

import pytest

import holdfast
from holdfast.base import CorruptionError, WrongKeyError
from holdfast.crypto import FileKind, KeyRing, KeySource, SealedEnv, key_files
from holdfast.env import SimEnv
from holdfast.manifest import Version, VersionEdit, VersionSet, encode_edit
from holdfast.recovery import check_root, key_source, read_root, root_of, unlock
from holdfast.recovery.sealing import drop_old_keys, sealed_env

KEY = bytes(range(32))
FOLDER = "/db"


@pytest.fixture
def env() -> SimEnv:
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    return env


def add(env: SimEnv, *names: str) -> None:
    for name in names:
        env.create(f"{FOLDER}/{name}", site="test").close()


def sealed_file(env: Any, ring: KeyRing, name: str, kind: FileKind) -> None:
    preamble, _ = ring.new_file(kind)
    file = env.create(f"{FOLDER}/{name}", site="test")
    file.write_at(0, preamble.encode() + bytes(200), site="test")
    file.close()


def test_a_source_of_keys_is_one_already() -> None:
    source = KeySource(KEY)
    assert key_source(source) is source
    assert key_source(None) is None
    for key in (KEY, bytearray(KEY), memoryview(KEY), "a passphrase", lambda: KEY):
        assert isinstance(key_source(key), KeySource)
    with pytest.raises(TypeError, match="a key is 32 bytes"):
        key_source(5)


@pytest.mark.parametrize("is_repair", [False, True])
def test_no_frame_of_a_refusal_shows_the_key(env: SimEnv, is_repair: bool) -> None:
    """What a report of an error prints of each frame must not be a key that was mistyped."""
    key = b"nearly a key of 32 bytes"
    with pytest.raises(ValueError, match="32 bytes") as caught:
        if is_repair:
            holdfast.repair(FOLDER, key=key, env=env)
        else:
            key_source(key)
    frames, entry = [], caught.value.__traceback__
    while entry is not None:
        frames.append(entry.tb_frame)
        entry = entry.tb_next
    ours = [frame for frame in frames if "/holdfast/recovery/" in frame.f_code.co_filename]
    assert len(ours) == 1 + is_repair
    assert all(key not in frame.f_locals.values() for frame in ours)


def test_an_empty_folder_gets_keys_only_when_a_database_is_made(env: SimEnv) -> None:
    source = KeySource(KEY)
    assert unlock(env, FOLDER, source) is env
    assert unlock(env, FOLDER, None, create=True) is env
    assert env.list_dir(FOLDER) == []
    made = unlock(env, FOLDER, source, create=True)
    assert isinstance(made, SealedEnv)
    assert key_files(env, FOLDER) == [1]
    # A creation that was cut off: nobody who only looks finds a database.
    assert unlock(env, FOLDER, source) is env
    assert unlock(env, FOLDER, None) is env
    with pytest.raises(WrongKeyError):
        unlock(env, FOLDER, None, create=True)
    again = unlock(env, FOLDER, source, create=True)
    assert isinstance(again, SealedEnv)
    assert again.ring.ring_id == made.ring.ring_id


@pytest.mark.parametrize("name", ["00000001.wal", "00000001.table"])
def test_files_that_only_a_marker_comes_before_are_not_taken_for_a_new_folder(
    env: SimEnv, name: str
) -> None:
    add(env, "00000002.manifest", name)
    with pytest.raises(CorruptionError, match="no CURRENT marker") as caught:
        unlock(env, FOLDER, KeySource(KEY), create=True)
    assert caught.value.file == FOLDER
    assert unlock(env, FOLDER, None, create=True) is env
    add(env, "CURRENT.1.2")
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        unlock(env, FOLDER, KeySource(KEY), create=True)


def test_a_manifest_alone_is_no_sign_of_a_lost_marker(env: SimEnv) -> None:
    """A creation leaves it when it is cut off."""
    add(env, "00000002.manifest", "00000003.manifest")
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        unlock(env, FOLDER, KeySource(KEY), create=True)


@pytest.mark.parametrize("source", [None, KeySource(KEY)])
@pytest.mark.parametrize(
    ("name", "kind"), [("00000002.manifest", FileKind.MANIFEST), ("00000003.wal", FileKind.LOG)]
)
def test_sealed_files_without_a_key_file_are_damage(
    env: SimEnv, source: KeySource | None, name: str, kind: FileKind
) -> None:
    ring = KeyRing.create(env, FOLDER, KeySource(KEY))
    sealed_file(env, ring, name, kind)
    env.unlink(f"{FOLDER}/KEYS.1", site="test")
    with pytest.raises(CorruptionError, match="its key file is missing"):
        unlock(env, FOLDER, source)
    if kind is FileKind.MANIFEST:
        add(env, "CURRENT.1.2")
        with pytest.raises(CorruptionError, match="its key file is missing"):
            unlock(env, FOLDER, source)
        assert env.unreturned() == []


def test_whoever_only_reads_writes_no_key_file(env: SimEnv) -> None:
    ring = KeyRing.create(env, FOLDER, KeySource(KEY))
    sealed_file(env, ring, "00000002.manifest", FileKind.MANIFEST)
    before = env.op_count
    assert isinstance(unlock(env, FOLDER, KeySource(KEY)), SealedEnv)
    assert env.op_count == before
    assert isinstance(unlock(env, FOLDER, KeySource(KEY), for_writing=True), SealedEnv)
    with pytest.raises(WrongKeyError):
        unlock(env, FOLDER, None)
    with pytest.raises(WrongKeyError):
        unlock(env, FOLDER, KeySource(KEY[::-1]))


def epochs_after_drop(env: SimEnv, ring: KeyRing) -> tuple[int, ...]:
    drop_old_keys(sealed_env(env, FOLDER, ring), FOLDER)
    assert ring._wrapping is None, "an open database needs only its data keys"
    assert env.unreturned() == []
    return ring.epochs


def test_keys_are_dropped_below_the_first_that_a_file_needs(env: SimEnv) -> None:
    ring = KeyRing.create(env, FOLDER, KeySource(KEY))
    sealed_file(env, ring, "00000001.wal", FileKind.LOG)
    for number in (2, 3, 4):
        ring.replace(*ring.protect(KeySource(KEY)))
        sealed_file(env, ring, f"0000000{number}.wal", FileKind.LOG)
    assert ring.epochs == (1, 2, 3, 4)

    def loaded() -> KeyRing:
        return KeyRing.load_for_writing(env, FOLDER, KeySource(KEY), tuple)

    ring = loaded()
    before = env.op_count
    assert epochs_after_drop(env, ring) == (1, 2, 3, 4)
    assert not [op for op in env.op_log[before:] if op.kind in ("create", "write", "sync")]
    env.unlink(f"{FOLDER}/00000001.wal", site="test")
    env.unlink(f"{FOLDER}/00000002.wal", site="test")
    assert epochs_after_drop(env, loaded()) == (3, 4)
    env.unlink(f"{FOLDER}/00000003.wal", site="test")
    env.unlink(f"{FOLDER}/00000004.wal", site="test")
    assert epochs_after_drop(env, loaded()) == (4,)
    drop_old_keys(env, FOLDER)


def test_a_root_is_made_of_what_its_description_says() -> None:
    version = Version().apply(VersionEdit(last_seq=9, durable_lsn=7))
    numbers = pack(">QQ", version.edit_seq, 7)
    content = b"holdfast root 1" + bytes(16) + numbers + pack(">Q", 5)
    digest = hashlib.sha256(content + encode_edit(version.snapshot_edit())).digest()
    assert root_of(bytes(16), version, 7, 5) == numbers + digest


def test_a_folder_without_a_database_has_no_root(env: SimEnv) -> None:
    for call in (lambda: read_root(env, FOLDER), lambda: check_root(env, FOLDER, bytes(48))):
        with pytest.raises(FileNotFoundError, match="no database at /db"):
            call()


def test_the_root_of_a_creation_that_was_cut_off_has_no_record(env: SimEnv) -> None:
    version = Version().apply(VersionEdit(next_number=2))
    VersionSet.create(env, FOLDER, 1, bytes(16), version).close()
    expected = root_of(bytes(16), VersionSet.recover(env, FOLDER).version, 0, 0)
    assert read_root(env, FOLDER) == expected


@pytest.mark.parametrize("at", [7, 15, 47])
@pytest.mark.parametrize("by", [1, -1])
def test_a_root_that_is_not_that_of_the_folder_is_refused_unless_it_is_older(
    env: SimEnv, at: int, by: int
) -> None:
    """Numbers that are greater say that the folder was set back, a digest that it is another one;
    of a smaller number nothing is known.
    """
    with holdfast.open(FOLDER, env=env) as db:
        for number in range(3):
            db[b"k"] = b"%d" % number
    root = bytearray(read_root(env, FOLDER))
    check_root(env, FOLDER, bytes(root))
    root[at] = (root[at] + by) % 256
    if at == 47:
        with pytest.raises(CorruptionError, match="another history"):
            check_root(env, FOLDER, bytes(root))
    elif by > 0:
        with pytest.raises(CorruptionError, match="set back: it is at edit"):
            check_root(env, FOLDER, bytes(root))
    else:
        check_root(env, FOLDER, bytes(root))
    for size in (0, 47, 49):
        with pytest.raises(ValueError, match=f"not {size}"):
            check_root(env, FOLDER, bytes(size))
