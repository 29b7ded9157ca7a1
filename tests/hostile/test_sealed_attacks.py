"""Attacks on the files of an encrypted database, by somebody who may change them and has no key.

Each ends with an error or with the answer that was written. Checksums, which anybody can compute,
are mended by the attacker wherever that helps.
"""

import random
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.bufferpool import BufferPool
from holdfast.codec import checksum, page_seed
from holdfast.crypto import PREAMBLE_BYTES, KeyRing, KeySource
from holdfast.env import PosixEnv
from holdfast.manifest import ManifestSealing, sealed
from holdfast.recovery import check_folder, sealed_env
from holdfast.sstable import (
    FOOTER_BYTES,
    Footer,
    PageType,
    TableReader,
    decode_entries,
    decode_index_value,
    decode_root_value,
)

KEY = bytes(range(32))
SETTINGS = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=64 << 10,
    keyspace=KeyspaceSettings(
        memtable_bytes=1 << 20, page_bytes=1024, compression="none", level0_tables=32
    ),
)
TAIL_BYTES = 64


def row(number):
    return b"key %04d" % number, b"value %04d " % number * 4


def make(path, *, shift=0):
    """Two tables over the same keys and a log, as a crash leaves them; return what is in it."""
    live = f"{path}-live"
    rows = {}
    with holdfast.open(live, key=KEY, settings=SETTINGS) as db:
        for part in range(2):
            for number in range(part, 200, 2):
                key, value = row(number + shift)
                db.put(key, value, durability="none")
                rows[key] = value
            db.flush()
        for number in range(200, 210):
            key, value = row(number + shift)
            db[key] = value
            rows[key] = value
        shutil.copytree(live, path)
    shutil.rmtree(live)
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("attack") / "db")
    return path, make(path)


@pytest.fixture
def victim(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "db")
    return Path(tmp_path / "db")


def only(folder, suffix):
    return sorted(folder.glob(f"*{suffix}"))


def verdict(folder, rows):
    """What an open and a read of everything gives: "error" or "right". All else is a failure."""
    try:
        with holdfast.open(str(folder), key=KEY, create=False) as db:
            found = dict(db.items())
            report = db.verify()
    except (holdfast.Error, FileNotFoundError):
        return "error"
    assert found == rows
    return "right" if report.ok else "error"


def attacked(folder, rows):
    """Require that an attack is found, by a check and by an open that reads everything."""
    assert not check_folder(PosixEnv(), str(folder), source=KeySource(KEY)).ok
    assert verdict(folder, rows) == "error"


def torn(folder, rows, *, most):
    """Require that at most so many of the last rows are missing, and no other: somebody who tears
    off the end of the log makes what a crash makes.
    """
    with holdfast.open(str(folder), key=KEY) as db:
        found = dict(db.items())
        assert db.verify().ok
    missing = len(rows) - len(found)
    assert 0 <= missing <= most
    assert found == dict(list(rows.items())[: len(found)])


def test_the_victim_is_well_before_it_is_attacked(victim, made):
    assert len(only(victim, ".table")) == 2
    assert check_folder(PosixEnv(), str(victim), source=KeySource(KEY)).ok
    assert verdict(victim, made[1]) == "right"


def mended_page(table, offset, size, data):
    """A page with the checksum that fits its place in this table."""
    footer = table[-TAIL_BYTES - FOOTER_BYTES : -TAIL_BYTES]
    seed = page_seed(footer[16:32], offset)
    return data[: size - 8] + checksum(data[: size - 8], seed).to_bytes(8, "little")


def pages_of(path):
    """(offset, size) of the data pages of a sealed table, which only the key tells; the attacker is
    given them.
    """
    folder = str(path.parent)
    ring = KeyRing.load(PosixEnv(), folder, KeySource(KEY))
    file = sealed_env(PosixEnv(), folder, ring).open(str(path))
    size = file.size()
    footer = Footer.decode(file.read_at(size - FOOTER_BYTES, FOOTER_BYTES), str(path), size)
    reader = TableReader(file, footer.number, footer.file_id, BufferPool(1 << 20))
    handles = []
    limit = size - FOOTER_BYTES
    root = reader.read_page(footer.root, PageType.INDEX_ROOT)
    for _, _, value in decode_entries(root, "root", 0):
        index = reader.read_page(decode_root_value(value, limit)[0], PageType.INDEX)
        for _, _, leaf in decode_entries(index, "index", 0):
            handles.append(decode_index_value(leaf, limit))
    reader.close()
    return [(handle.offset, handle.size) for handle in handles]


def test_pages_that_change_places_within_a_table_are_found(victim, made):
    path = only(victim, ".table")[0]
    data = bytearray(path.read_bytes())
    places = pages_of(path)
    sizes = [size for _, size in places]
    one, two = next((a, b) for a in range(len(sizes)) for b in range(a) if sizes[a] == sizes[b])
    (at, size), (other, _) = places[one], places[two]
    first, second = bytes(data[at : at + size]), bytes(data[other : other + size])
    data[at : at + size] = mended_page(bytes(data), at, size, second)
    data[other : other + size] = mended_page(bytes(data), other, size, first)
    path.write_bytes(data)
    attacked(victim, made[1])


def test_a_page_of_another_table_at_the_same_place_is_found(victim, made):
    one, two = only(victim, ".table")
    data, donor = bytearray(one.read_bytes()), two.read_bytes()
    at, size = pages_of(one)[0]
    assert pages_of(two)[0] == (at, size)
    data[at : at + size] = mended_page(bytes(data), at, size, donor[at : at + size])
    one.write_bytes(data)
    attacked(victim, made[1])


def test_a_page_that_is_doubled_is_found(victim, made):
    path = only(victim, ".table")[0]
    data = bytearray(path.read_bytes())
    places = pages_of(path)
    (at, size), (other, _) = next(
        (a, b) for a in places for b in places if a[0] < b[0] and a[1] == b[1]
    )
    data[other : other + size] = mended_page(bytes(data), other, size, bytes(data[at : at + size]))
    path.write_bytes(data)
    attacked(victim, made[1])


def test_a_plain_page_in_a_sealed_table_is_found(victim, made):
    """The downgrade of one page: its seal is cut off, and the fields say so."""
    path = only(victim, ".table")[0]
    data = bytearray(path.read_bytes())
    at, size = pages_of(path)[0]
    page = bytearray(data[at : at + size])
    page[-16] &= 0x0F
    struct.pack_into("<I", page, size - 12, size - 16)
    data[at : at + size] = mended_page(bytes(data), at, size, bytes(page))
    path.write_bytes(data)
    attacked(victim, made[1])


def test_tables_that_change_names_are_found(victim, made):
    one, two = only(victim, ".table")
    one.rename(victim / "x")
    two.rename(one)
    (victim / "x").rename(two)
    attacked(victim, made[1])


@pytest.mark.parametrize("suffix", [".table", ".manifest"])
def test_a_file_that_is_missing_is_found(victim, made, suffix):
    only(victim, suffix)[0].unlink()
    attacked(victim, made[1])


def test_a_log_that_is_missing_is_found(victim, made):
    for path in only(victim, ".wal"):
        path.unlink()
    attacked(victim, made[1])


@pytest.mark.parametrize("suffix", [".table", ".wal", ".manifest"])
@pytest.mark.parametrize("change", ["shorter", "longer"])
def test_a_file_that_has_another_length_is_found(victim, made, suffix, change):
    path = only(victim, suffix)[0]
    data = path.read_bytes()
    path.write_bytes(data[:-100] if change == "shorter" else data + bytes(100))
    if suffix == ".manifest":
        # The end of a manifest may be torn by a crash; what was there then is what is there.
        assert verdict(victim, made[1]) in ("error", "right")
    else:
        attacked(victim, made[1])


@pytest.mark.parametrize("suffix", [".table", ".wal", ".manifest"])
def test_a_file_of_another_database_with_the_same_key_is_found(victim, made, tmp_path, suffix):
    make(str(tmp_path / "other"))
    mine = only(victim, suffix)[0]
    theirs = only(tmp_path / "other", suffix)[0]
    assert mine.name == theirs.name
    shutil.copy(theirs, mine)
    attacked(victim, made[1])


def test_the_key_file_of_another_database_with_the_same_key_is_found(victim, made, tmp_path):
    make(str(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "KEYS.1", victim / "KEYS.1")
    attacked(victim, made[1])


@pytest.mark.parametrize("suffix", [".table", ".wal", ".manifest"])
def test_a_plain_file_in_the_place_of_a_sealed_one_is_found(victim, made, tmp_path, suffix):
    """The downgrade of a whole file: an attacker can write any plain file."""
    plain = tmp_path / "plain"
    with holdfast.open(str(plain), settings=SETTINGS) as db:
        db[b"key"] = b"of the attacker"
        db.flush()
        db[b"key"] = b"of the attacker"
        for path in only(plain, suffix)[:1]:
            shutil.copy(path, only(victim, suffix)[0])
    attacked(victim, made[1])


def records(path):
    """(offset, whole size) of the sealed records of a segment, which anybody can see."""
    data = path.read_bytes()
    found = []
    at = data.find(b"HWSL", 4096)
    while at >= 0:
        size = 80 + int.from_bytes(data[at + 4 : at + 8], "little")
        found.append((at, -(-size // 8) * 8))
        at = data.find(b"HWSL", at + size)
    return found


@pytest.fixture
def log(victim):
    path = next(path for path in only(victim, ".wal") if len(records(path)) > 8)
    return path, bytearray(path.read_bytes()), records(path)


def test_no_record_follows_one_that_is_dropped(victim, made, log):
    """Where they move to, the others do not open: it is as if all had been torn off."""
    path, data, places = log
    at, size = places[-3]
    data[at:-size] = data[at + size :]
    data[-size:] = bytes(size)
    path.write_bytes(data)
    torn(victim, made[1], most=3)


def test_a_record_that_is_zeroed_is_found(victim, made, log):
    path, data, places = log
    at, size = places[-3]
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    attacked(victim, made[1])


def test_records_that_change_places_are_found(victim, made, log):
    path, data, places = log
    (at, size), (other, same) = places[-3], places[-2]
    assert size == same
    data[at : at + size], data[other : other + size] = (
        data[other : other + size],
        data[at : at + size],
    )
    path.write_bytes(data)
    attacked(victim, made[1])


def test_a_record_that_is_doubled_is_not_read_twice(victim, made, log):
    path, data, places = log
    at, size = places[-1]
    data[at + size : at + 2 * size] = data[at : at + size]
    path.write_bytes(data)
    assert verdict(victim, made[1]) in ("right", "error")


def test_records_that_are_torn_off_leave_a_prefix(victim, made, log):
    path, data, places = log
    at, _ = places[-1]
    data[at:] = bytes(len(data) - at)
    path.write_bytes(data)
    torn(victim, made[1], most=1)


def test_a_length_is_never_believed(victim, made, log, rng: random.Random):
    path, data, places = log
    at, _ = places[2]
    for size in (0, 1, 2**31, 2**32 - 1, rng.randrange(2**16)):
        data[at + 4 : at + 8] = size.to_bytes(4, "little")
        path.write_bytes(data)
        attacked(victim, made[1])


def test_a_segment_full_of_lengths_takes_no_time(victim, made, log):
    """Each of many places says that it is a record up to the end of the segment."""
    path, data, places = log
    at, _ = places[1]
    for place in range(at, len(data) - 80, 8):
        data[place : place + 8] = struct.pack("<II", 0x4C535748, len(data) - 80 - place)
    path.write_bytes(data)
    attacked(victim, made[1])


FRAME = b"HWSM"


def frames(path):
    data = path.read_bytes()
    found = []
    at = PREAMBLE_BYTES
    while data[at : at + 4] == FRAME:
        size = 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        end = -(-(at + size) // 8) * 8
        found.append((at, end))
        at = end
    return data, found


def test_an_edit_that_is_dropped_doubled_or_moved_is_found(victim, made):
    (path,) = only(victim, ".manifest")
    data, places = frames(path)
    assert len(places) > 3
    first, second, last = (data[a:b] for a, b in (places[1], places[2], places[-1]))
    head, middle = data[: places[1][0]], data[places[2][1] :]
    for changed in (
        head + second + middle,
        head + first + first + second + middle,
        head + second + first + middle,
        data[: places[0][0]] + data[places[1][0] :],
    ):
        path.write_bytes(changed)
        attacked(victim, made[1])
    # Behind the end it does not open, and changes nothing.
    path.write_bytes(data + last)
    assert verdict(victim, made[1]) == "right"


class Extended:
    """A manifest with something behind it, and what was asked of it."""

    name = "00000001.manifest"

    def __init__(self, data, unit, size):
        self.data, self.unit, self.whole = data, unit, size
        self.asked = []

    def size(self):
        return self.whole

    def read_at(self, offset, count):
        self.asked.append(count)
        count = min(count, self.whole - offset)
        start = len(self.data)
        tail = max(offset + count - max(offset, start), 0)
        skip = max(offset - start, 0) % len(self.unit)
        part = (self.unit * (tail // len(self.unit) + 2))[skip : skip + tail]
        return self.data[offset : offset + count] + part


@pytest.mark.parametrize(
    "unit", [bytes(8), b"\xab" * 8, FRAME + bytes(4), FRAME + bytes([200] * 4)]
)
def test_a_manifest_is_read_in_parts_whatever_stands_behind_it(victim, unit):
    """What was appended to a file must not take memory: no more is read at once than what a frame
    that lies within the file asks for.
    """
    (path,) = only(victim, ".manifest")
    data = path.read_bytes()
    ring = KeyRing.load(PosixEnv(), str(victim), KeySource(KEY))
    expected = ManifestSealing().opened(Extended(data, b"\0", len(data)), ring).read_at(0, 1 << 20)
    file = Extended(data, unit, 1 << 26)
    tracemalloc.start()
    try:
        face = ManifestSealing().opened(file, ring)
        shown = None
        try:
            shown = face.read_at(0, 1 << 20)
        except holdfast.CorruptionError as error:
            assert "another follows" in str(error)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(file.asked) <= 1 << 18
    assert peak < 4 << 20
    # More than 64 places that look like frames count as one that was synced.
    assert shown == (None if unit.startswith(FRAME) else expected + b"\xff")


def test_frames_that_claim_all_of_an_extended_manifest_are_not_tried_for_ever(victim, monkeypatch):
    (path,) = only(victim, ".manifest")
    data = path.read_bytes()
    ring = KeyRing.load(PosixEnv(), str(victim), KeySource(KEY))
    size = 1 << 22
    unit = (FRAME + (size // 2).to_bytes(4, "little")).ljust(4096, b"\1")
    monkeypatch.setattr(sealed, "_TRIED_BYTES_MAX", 3 * size)
    file = Extended(data, unit, size)
    with pytest.raises(holdfast.CorruptionError, match="another follows"):
        ManifestSealing().opened(file, ring).read_at(0, 1)
    # The one at the place, and those behind it.
    assert file.asked.count(size // 2) == 1 + 6
    # A piece longer than any manifest is not even read.
    monkeypatch.setattr(sealed, "_PIECE_BYTES_MAX", size // 2 - 1)
    file = Extended(data, unit, size)
    with pytest.raises(holdfast.CorruptionError, match="another follows"):
        ManifestSealing().opened(file, ring).read_at(0, 1)
    assert max(file.asked) <= 1 << 18


def test_a_manifest_that_was_extended_opens(victim, made):
    """Zeros behind it are what a crash may leave there."""
    (path,) = only(victim, ".manifest")
    with path.open("r+b") as file:
        file.truncate(64 << 20)
    assert verdict(victim, made[1]) == "right"


def test_edits_that_are_torn_off_are_found_by_the_log(victim, made):
    """The log names the last edit that was synced before each record."""
    (path,) = only(victim, ".manifest")
    data, places = frames(path)
    path.write_bytes(data[: places[-1][0]])
    attacked(victim, made[1])


def test_an_older_manifest_of_the_same_database_is_found(victim, made, tmp_path):
    (path,) = only(victim, ".manifest")
    older, marker = path.read_bytes(), next(victim.glob("CURRENT.*"))
    name = marker.name
    with holdfast.open(str(victim), key=KEY) as db:
        rows = dict(db.items())
    path.write_bytes(older)
    for current in victim.glob("CURRENT.*"):
        current.unlink()
    (victim / name).touch()
    attacked(victim, rows)


@pytest.mark.parametrize("suffix", [".table", ".wal", ".manifest", "KEYS.1"])
def test_bits_that_are_flipped_give_an_error_or_the_right_answer(victim, made, suffix, rng):
    path = only(victim, suffix)[0]
    data = path.read_bytes()
    # The last record may be torn, see above.
    end = records(path)[-1][0] if suffix == ".wal" else len(data.rstrip(b"\0"))
    places = [
        *range(min(end, 160)),
        *(rng.randrange(end) for _ in range(60)),
        *range(end - 64, end),
    ]
    for at in places[:: 4 if suffix != "KEYS.1" else 1]:
        broken = bytearray(data)
        broken[at] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        copy = victim.parent / "copy"
        shutil.copytree(victim, copy)
        assert verdict(copy, made[1]) in ("error", "right")
        shutil.rmtree(copy)


@pytest.mark.parametrize("suffix", [".table", ".wal", ".manifest"])
@pytest.mark.parametrize("at", range(8, 32))
def test_no_field_of_a_preamble_can_be_changed(victim, made, suffix, at):
    """Version, suite, kind, epoch and seal id, each under a checksum that fits."""
    path = only(victim, suffix)[0]
    data = bytearray(path.read_bytes())
    start = len(data) - TAIL_BYTES if suffix == ".table" else 0
    data[start + at] ^= 2
    front = bytes(data[start : start + 32])
    data[start + 32 : start + 40] = checksum(front).to_bytes(8, "little")
    path.write_bytes(data)
    attacked(victim, made[1])
