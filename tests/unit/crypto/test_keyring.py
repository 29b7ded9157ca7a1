"""Key files and the keys that they hold."""

import pickle
import random

import pytest

from holdfast.base import CorruptionError, FormatError, LimitError, WrongKeyError, marks_seen
from holdfast.codec import checksum
from holdfast.crypto import (
    FileKind,
    KeyFile,
    KeyRing,
    KeySource,
    Preamble,
    ScryptCost,
    SealError,
    Secret,
    Suite,
    decode_key_file,
    encode_key_file,
    key_file_name,
    key_files,
    parse_key_file_name,
    read_key_file,
)
from holdfast.env import CrashPoint, FaultEnv, FaultRule, SimEnv

FOLDER = "/db"
KEY = bytes(range(32))
SOURCE = KeySource(KEY)


@pytest.fixture
def env():
    env = SimEnv()
    env.make_dir(FOLDER, site="test")
    return env


def content(env, iteration=1):
    file = env.open(f"{FOLDER}/{key_file_name(iteration)}")
    return file.read_at(0, file.size())


def overwrite(env, data, iteration=1):
    env.unlink(f"{FOLDER}/{key_file_name(iteration)}", site="test")
    file = env.create(f"{FOLDER}/{key_file_name(iteration)}", site="test")
    file.write_at(0, data, site="test")


def mended(data):
    """The data with a right checksum, as a forger makes it."""
    return data[:-8] + checksum(data[:-8]).to_bytes(8, "little")


@pytest.mark.parametrize("suite", Suite)
def test_what_was_sealed_opens_after_a_reload(env, suite):
    ring = KeyRing.create(env, FOLDER, SOURCE, suite=suite)
    preamble, cipher = ring.new_file(FileKind.LOG)
    sealed = cipher.seal(64, b"content", b"extra")
    assert b"content" not in sealed
    again = KeyRing.load(env, FOLDER, KeySource(KEY))
    stored = Preamble.decode(preamble.encode(), FileKind.LOG, "f", 0)
    opener = again.opened_file(stored, "f", 0)
    assert opener.open(64, sealed, b"extra") == b"content"
    for offset, extra in ((72, b"extra"), (64, b"other"), (0, b"extra")):
        with pytest.raises(SealError):
            opener.open(offset, sealed, extra)
    for size in (0, 8, 23, len(sealed) - 1):
        with pytest.raises(SealError):
            opener.open(64, sealed[:size], b"extra")


def test_no_file_opens_another(env):
    ring = KeyRing.create(env, FOLDER, SOURCE)
    _, one = ring.new_file(FileKind.LOG)
    _, two = ring.new_file(FileKind.LOG)
    with pytest.raises(SealError):
        two.open(0, one.seal(0, b"content", b""), b"")


@pytest.mark.parametrize("field", ["kind", "epoch", "seal_id", "suite"])
def test_each_field_of_a_preamble_is_part_of_the_key(env, field):
    ring = KeyRing.create(env, FOLDER, SOURCE, suite=Suite.AES_256_GCM)
    ring.replace(*ring.protect(SOURCE))
    preamble, cipher = ring.new_file(FileKind.LOG)
    fields = {
        "suite": preamble.suite,
        "kind": preamble.kind,
        "epoch": preamble.epoch,
        "seal_id": preamble.seal_id,
    }
    fields[field] = {
        "suite": Suite.CHACHA20_POLY1305,
        "kind": FileKind.TABLE,
        "epoch": 1,
        "seal_id": bytes(16),
    }[field]
    sealed = cipher.seal(0, b"content", b"")
    with pytest.raises((SealError, CorruptionError)):
        ring.opened_file(Preamble(**fields), "f", 0).open(0, sealed, b"")


def test_a_wrong_key_is_told_from_damage(env):
    KeyRing.create(env, FOLDER, SOURCE)
    with pytest.raises(WrongKeyError):
        KeyRing.load(env, FOLDER, KeySource(bytes(32)))
    data = content(env)
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1
        overwrite(env, bytes(broken))
        with pytest.raises(CorruptionError):
            KeyRing.load(env, FOLDER, SOURCE)
    for size in range(len(data)):
        overwrite(env, data[:size])
        with pytest.raises(CorruptionError):
            KeyRing.load(env, FOLDER, SOURCE)


def test_a_forged_key_file_never_opens(env):
    """Every byte changed under a checksum that is right."""
    KeyRing.create(env, FOLDER, SOURCE, suite=Suite.AES_256_GCM)
    data = content(env)
    for at in range(len(data) - 8):
        broken = bytearray(data)
        broken[at] ^= 1
        overwrite(env, mended(bytes(broken)))
        with pytest.raises((CorruptionError, WrongKeyError, FormatError)):
            KeyRing.load(env, FOLDER, SOURCE)


def test_random_bytes_are_refused(rng: random.Random):
    for size in range(200, 4000, 37):
        data = mended(b"HFkeys\r\n" + rng.randbytes(size))
        with pytest.raises((CorruptionError, FormatError)):
            decode_key_file(data, "KEYS.1", 1)


def test_a_newer_key_file_is_a_format_error(env):
    KeyRing.create(env, FOLDER, SOURCE)
    data = bytearray(content(env))
    data[8] = 2
    with pytest.raises(FormatError):
        decode_key_file(mended(bytes(data)), "KEYS.1", 1)


@pytest.mark.parametrize(("at", "value"), [(48, 31), (48, 9), (52, 1 << 20), (56, 1 << 20)])
def test_costs_of_a_forged_file_are_looked_at_before_they_are_paid(env, at, value):
    KeyRing.create(env, FOLDER, KeySource("words"), cost=ScryptCost(10, 8, 1))
    data = bytearray(content(env))
    data[at : at + 4] = value.to_bytes(4, "little")
    overwrite(env, mended(bytes(data)))
    with pytest.raises(CorruptionError, match="scrypt"):
        KeyRing.load(env, FOLDER, KeySource("words"))


def test_keys_that_no_writer_makes_are_damage(env):
    """A key file whose tag is right, by whoever has the key."""
    ring = KeyRing.create(env, FOLDER, SOURCE)
    protection, wrapping = SOURCE.protect(bytes(32))
    keys = KeyFile(
        ring_id=ring.ring_id,
        iteration=1,
        suite=ring.suite,
        epoch=7,
        keys={1: Secret(KEY), 2: Secret(KEY)},
    )
    overwrite(env, encode_key_file(keys, protection, wrapping, bytes(12)))
    with pytest.raises(CorruptionError, match="epochs"):
        KeyRing.load(env, FOLDER, SOURCE)


@pytest.mark.parametrize(
    ("name", "iteration"),
    [
        ("KEYS.1", 1),
        ("KEYS.120", 120),
        ("KEYS.0", None),
        ("KEYS.01", None),
        ("KEYS.", None),
        ("KEYS", None),
        ("KEYS.1.bak", None),
        ("keys.1", None),
    ],
)
def test_names_of_key_files(name, iteration):
    assert parse_key_file_name(name) == iteration


def test_a_change_replaces_the_key_and_keeps_the_data_keys(env):
    ring = KeyRing.create(env, FOLDER, SOURCE)
    preamble, cipher = ring.new_file(FileKind.TABLE)
    sealed = cipher.seal(0, b"content", b"")
    ring.replace(*ring.protect(KeySource(bytes(32))))
    assert key_files(env, FOLDER) == [2]
    with pytest.raises(WrongKeyError):
        KeyRing.load(env, FOLDER, SOURCE)
    again = KeyRing.load(env, FOLDER, KeySource(bytes(32)))
    assert (again.epoch, again.epochs) == (2, (1, 2))
    assert again.opened_file(preamble, "f", 0).open(0, sealed, b"") == b"content"
    assert again.new_file(FileKind.TABLE)[0].epoch == 2


def test_a_forgotten_epoch_does_not_open(env):
    ring = KeyRing.create(env, FOLDER, SOURCE)
    preamble, _ = ring.new_file(FileKind.TABLE)
    ring.replace(*ring.protect(SOURCE))
    ring = KeyRing.load_for_writing(env, FOLDER, SOURCE, tuple)
    ring.forget_below(2)
    assert ring.epochs == (2,)
    assert KeyRing.load(env, FOLDER, SOURCE).epochs == (2,)
    with pytest.raises(CorruptionError, match="epoch 1"):
        ring.opened_file(preamble, "f", 0)


def test_a_torn_change_leaves_the_key_of_before_in_force(env):
    ring = KeyRing.create(env, FOLDER, SOURCE)
    file = env.create(f"{FOLDER}/{key_file_name(2)}", site="test")
    file.write_at(0, content(env)[:50], site="test")
    assert read_key_file(env, FOLDER).iteration == 1
    assert "keys.older_used" in marks_seen()
    again = KeyRing.load(env, FOLDER, SOURCE)
    assert again.ring_id == ring.ring_id
    again.replace(*again.protect(KeySource(bytes(32))))
    assert KeyRing.load(env, FOLDER, KeySource(bytes(32))).epoch == 2


def test_an_open_for_writing_writes_the_key_file_anew(env):
    """Its sync may have failed, and what is read be in a cache only."""
    env.sync_dir("/", site="test")
    fault = FaultEnv(env)
    fault.add(FaultRule(site="keys.sync"))
    with pytest.raises(OSError):
        KeyRing.create(fault, FOLDER, SOURCE)
    ring = KeyRing.load_for_writing(env, FOLDER, SOURCE, tuple)
    assert key_files(env, FOLDER) == [2]
    point = CrashPoint(env)
    for name in ("none", "all"):
        booted = point.state(name).build()
        assert KeyRing.load(booted, FOLDER, SOURCE).ring_id == ring.ring_id
    one = content(env, 2)
    KeyRing.load_for_writing(env, FOLDER, SOURCE, tuple)
    two = content(env, 3)
    assert one[64:96] == two[64:96]
    assert one[96:108] != two[96:108]


SITES = ("keys.create", "keys.write", "keys.sync", "keys.folder_sync")


@pytest.mark.parametrize("site", SITES)
def test_a_change_that_fails_leaves_one_of_the_two_keys_in_force(env, site):
    fault = FaultEnv(env)
    ring = KeyRing.create(fault, FOLDER, SOURCE)
    fault.add(FaultRule(site=site))
    with pytest.raises(OSError):
        ring.replace(*ring.protect(KeySource(bytes(32))))
    assert ring.epoch == 1
    opened = []
    for key in (KEY, bytes(32)):
        try:
            opened.append(KeyRing.load(env, FOLDER, KeySource(key)).epochs)
        except WrongKeyError:
            continue
    assert opened in ([(1,)], [(1, 2)])


@pytest.mark.parametrize("site", ["keys.obsolete.unlink", "keys.obsolete.folder_sync"])
def test_a_key_file_that_cannot_be_removed_is_not_in_force(env, site):
    fault = FaultEnv(env)
    ring = KeyRing.create(fault, FOLDER, SOURCE)
    ring.replace(*ring.protect(SOURCE))
    fault.add(FaultRule(site=site))
    ring = KeyRing.load(fault, FOLDER, SOURCE)
    ring.replace(*ring.protect(KeySource(bytes(32))))
    assert "keys.obsolete_kept" in marks_seen()
    assert KeyRing.load(env, FOLDER, KeySource(bytes(32))).epoch == 3
    with pytest.raises(WrongKeyError):
        KeyRing.load(env, FOLDER, SOURCE)


def test_there_is_an_end_of_epochs(env):
    ring = KeyRing.create(env, FOLDER, SOURCE)
    keys = dict.fromkeys(range(1, 4097), Secret(KEY))
    full = KeyFile(ring_id=bytes(16), iteration=1, suite=Suite.AES_256_GCM, epoch=4096, keys=keys)
    crowded = KeyRing(env, FOLDER, full)
    with pytest.raises(LimitError):
        crowded.replace(*crowded.protect(SOURCE))
    assert ring.epochs == (1,)


def test_keys_show_themselves_to_nobody(env):
    ring = KeyRing.create(env, FOLDER, SOURCE)
    _, cipher = ring.new_file(FileKind.TABLE)
    shown = f"{ring!r} {cipher!r} {read_key_file(env, FOLDER).unlock(SOURCE)!r}"
    for secret in (KEY, ring._keys.keys[1].reveal()):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    for holder in (ring, cipher):
        with pytest.raises(TypeError):
            pickle.dumps(holder)
