"""Goal: every limit of the manifest is where it should be, not one beside it.

Method: the last value that is allowed and the first that is not; damaged bytes whose error must
name the place and the reason; folders with the numbers that a comparison could confuse. Mutants
that survived the other suites of this room show which limits need it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from holdfast.base import SEQ_MAX, CorruptionError, DiskFullError, KeyspaceSettings, marks_seen
from holdfast.base.limits import KEYSPACE_NAME_BYTES_MAX
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.manifest import (
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Header,
    Version,
    VersionEdit,
    VersionSet,
    decode_edit,
    decode_manifest,
    encode_edit,
    later_record,
    record_header_at,
)
from holdfast.manifest.edit import SETTING_TEXT_BYTES_MAX, Tag
from holdfast.manifest.format import RECORD_PAYLOAD_BYTES_MAX, encode_record
from holdfast.manifest.log import NUMBER_LEAP_MAX, REWRITE_BYTES
from holdfast.manifest.version import KEYSPACE_ID_MAX, NUMBER_MAX
from holdfast.sstable import TableInfo

ID = bytes(range(16))
SETTINGS = KeyspaceSettings()


@pytest.fixture
def env() -> SimEnv:
    machine = SimEnv()
    machine.make_dir("/db", site="test")
    return machine


def table(number: int, lower: bytes, upper: bytes, seq_min: int, seq_max: int) -> TableInfo:
    return TableInfo(
        number=number, file_id=ID, size_bytes=1000, lower=lower, upper=upper,
        seq_min=seq_min, seq_max=seq_max, entry_count=5, delete_count=0,
        range_tombstone_count=0, raw_bytes=900, root_checksum=77, created_us=123,
    )  # fmt: skip


def add(env: SimEnv, name: str, data: bytes = b"") -> None:
    file = env.create(f"/db/{name}", site="test")
    file.write_at(0, data, site="test")
    file.close()


# --- edits


def test_the_numbers_of_tags_are_part_of_the_format() -> None:
    edits = {
        2: VersionEdit(keyspaces_dropped=(1,)),
        4: VersionEdit(keyspaces_created=((0, "a", SETTINGS),)),
        6: VersionEdit(tables_removed=((0, 1, 2),)),
        8: VersionEdit(tables_added=((0, 1, table(1, b"a", b"b", 1, 2)),)),
        10: VersionEdit(flushed_seq={0: 1}),
        12: VersionEdit(next_number=1),
        14: VersionEdit(next_keyspace_id=1),
        16: VersionEdit(last_seq=1),
        18: VersionEdit(wal_first=1),
        19: VersionEdit(wal_first_lsn=1),
        20: VersionEdit(durable_lsn=1),
        21: VersionEdit(wal_first_salt=1),
        22: VersionEdit(clean=True),
        24: VersionEdit(settings_text=""),
        28: VersionEdit(has_merges=True),
        30: VersionEdit(keyspaces_changed={0: SETTINGS}),
    }
    assert {tag.value for tag in Tag} == set(edits)
    assert [encode_edit(edit)[0] for edit in edits.values()] == list(edits)


def test_an_error_in_an_edit_names_the_place_and_the_reason() -> None:
    cases = [
        # A table whose file id is cut, with bytes of the next field behind it.
        (b"\x08\x04\x00\x00\x01\x07" + bytes(40), 4 + 1, "of 16 bytes does not fit the 1"),
        # A number that goes on behind the end of its field.
        (b"\x0c\x01\x80\x01", 2, "a number is cut short"),
        (b"\x0c\x02\x01\x01", 3, "has 1 bytes too many"),
        (b"\x00\x00", 1, "tag 0 stands after tag 0"),
    ]
    for payload, position, reason in cases:
        with pytest.raises(CorruptionError, match=reason) as caught:
            decode_edit(payload, "f", 1000)
        assert (caught.value.file, caught.value.offset) == ("f", 1000 + position), reason


def test_changed_settings_come_in_the_order_of_their_keyspaces() -> None:
    edit = VersionEdit(keyspaces_changed={7: SETTINGS, 2: SETTINGS})
    assert list(decode_edit(encode_edit(edit), "f", 0).keyspaces_changed) == [2, 7]
    one, two = (encode_edit(VersionEdit(keyspaces_changed={n: SETTINGS})) for n in (2, 7))
    assert decode_edit(one + two, "f", 0) == edit
    for wrong in (two + one, one + one):
        with pytest.raises(CorruptionError, match="the changed settings are not in ascending"):
            decode_edit(wrong, "f", 0)


def test_a_setting_is_read_as_a_number_up_to_so_many_digits() -> None:
    def edit(digits: str) -> bytes:
        plain = encode_edit(VersionEdit(keyspaces_created=((0, "a", SETTINGS),)))
        old = str(SETTINGS.memtable_bytes).encode()
        name = b"memtable_bytes" + bytes([len(old)])
        assert plain.count(name + old) == 1
        new = plain.replace(name + old, b"memtable_bytes" + bytes([len(digits)]) + digits.encode())
        size = len(plain) - 3 + len(digits) - len(old)
        # Tag and size of the field in front: the size has two bytes.
        return new[:1] + bytes([size & 0x7F | 0x80, size >> 7]) + new[3:]

    assert SETTING_TEXT_BYTES_MAX == 32
    with pytest.raises(CorruptionError, match="out of range"):
        decode_edit(edit("1" * 32), "f", 0)
    with pytest.raises(CorruptionError, match=r"'1{32}' of a keyspace setting is not a number"):
        decode_edit(edit("1" * 33), "f", 0)


# --- records and headers


class Long(bytes):
    """Bytes that say they are longer than memory allows."""

    said = 0

    def __len__(self) -> int:
        return self.said


def test_the_longest_payload_is_one_whose_padded_size_still_fits() -> None:
    assert RECORD_PAYLOAD_BYTES_MAX == 2**32 - 9
    payload = Long()
    payload.said = RECORD_PAYLOAD_BYTES_MAX
    encode_record(payload, 1, 2, 3)
    payload.said += 1
    with pytest.raises(ValueError, match="exceeds"):
        encode_record(payload, 1, 2, 3)


def test_a_header_is_64_bytes_and_no_more_are_needed() -> None:
    header = Header(7, ID, 99)
    stored = header.encode()
    assert (HEADER_BYTES, len(stored)) == (64, 64)
    assert Header.decode(stored, "f") == header
    with pytest.raises(CorruptionError, match="this file has 63"):
        Header.decode(stored[:63], "f")


def test_a_damaged_header_is_shown_as_it_stands() -> None:
    header = Header(7, ID, 99)
    stored = bytes(8) + header.encode()[8:]
    assert Header.as_stored(stored) == header
    assert Header.as_stored(stored + b"more") == header
    assert Header.as_stored(stored[:-1]) is None
    aligned = Header(7, ID, 99, 512).encode()
    assert Header.as_stored(bytes(8) + aligned[8:]) == Header(7, ID, 99, 512)
    nonsense = aligned[:12] + b"\xff" * 4 + aligned[16:]
    assert Header.as_stored(nonsense) == header


def test_an_aligned_record_ends_at_the_next_multiple() -> None:
    for alignment in (16, 512, 4096):
        for offset in (64, alignment, 3 * alignment):
            for size in (0, alignment - 41, alignment - 40, alignment - 39, 2 * alignment - 104):
                if size < 0:
                    continue
                record, _ = encode_record(bytes(size), 5, 6, 7, offset=offset, alignment=alignment)
                end = offset + len(record)
                assert end % alignment == 0
                assert 0 <= len(record) - 40 - size < alignment
                data = bytes(offset) + record
                found = record_header_at(data, offset, 7, alignment)
                assert found is not None
                assert (found.end, found.payload(data, 7)) == (end, bytes(size))
                if offset % alignment == 0:
                    assert later_record(data, 0, 7, alignment) == found
                    assert later_record(bytes(8) + data, 0, 7, alignment) is None


def test_a_later_record_is_found_wherever_it_starts() -> None:
    record, _ = encode_record(b"payload", 5, 6, 7)
    for front in (0, 8, 64):
        found = later_record(bytes(front) + record, 0, 7)
        assert found is not None
        assert (found.offset, found.edit_seq, found.end) == (front, 5, front + len(record))
    assert later_record(bytes(4) + record, 0, 7) is None, "records are aligned"
    assert later_record(record, 8, 7) is None
    # A magic that is nothing, right before one that is a record's.
    assert later_record(record[:8] + record, 0, 7) is not None


def test_an_error_in_a_record_counts_from_the_start_of_the_file() -> None:
    header = Header(7, ID, 99)
    record, _ = encode_record(b"\x0c\x02\x01\x01", 1, header.chain, 99)
    with pytest.raises(CorruptionError, match="too many") as caught:
        decode_manifest(header.encode() + record, "f")
    assert caught.value.offset == HEADER_BYTES + RECORD_HEADER_BYTES + 3


# --- versions


def test_an_empty_version_is_all_zeros() -> None:
    version = Version()
    assert (version.next_number, version.next_keyspace_id, version.last_seq) == (1, 0, 0)
    assert (version.wal_first, version.durable_lsn, version.edit_seq) == (0, 0, 0)
    assert (version.clean, version.settings_text, dict(version.keyspaces)) == (False, "", {})


@pytest.mark.parametrize(
    ("edit", "last", "reason"),
    [
        (lambda number: VersionEdit(last_seq=number), SEQ_MAX, "the sequence number"),
        (lambda number: VersionEdit(next_number=number), NUMBER_MAX, "the next file number"),
        (
            lambda number: VersionEdit(keyspaces_created=((number, "a", SETTINGS),)),
            KEYSPACE_ID_MAX,
            "the keyspace id",
        ),
        (
            lambda number: VersionEdit(keyspaces_created=((0, "a" * number, SETTINGS),)),
            KEYSPACE_NAME_BYTES_MAX,
            "a keyspace name has 1 to",
        ),
    ],
)
def test_the_greatest_is_allowed_and_no_more(
    edit: Callable[[int], VersionEdit], last: int, reason: str
) -> None:
    Version().apply(edit(last))
    with pytest.raises(ValueError, match=reason):
        Version().apply(edit(last + 1))


def test_limits_of_numbers() -> None:
    assert (KEYSPACE_ID_MAX, NUMBER_MAX) == (2**32 - 1, 2**64 - 2)


def test_tables_of_level_0_that_share_keys_share_no_number() -> None:
    base = Version().apply(
        VersionEdit(keyspaces_created=((0, "a", SETTINGS),), next_number=9, flushed_seq={0: 99})
    )

    def both(older_max: int) -> VersionEdit:
        older, newer = table(1, b"a", b"m", 1, older_max), table(2, b"c", b"z", 10, 20)
        return VersionEdit(tables_added=((0, 0, older), (0, 0, newer)))

    assert [each.number for each in base.apply(both(9)).keyspaces[0].levels[0]] == [2, 1]
    with pytest.raises(ValueError, match="share keys and numbers"):
        base.apply(both(10))


# --- the version set


def test_a_manifest_is_rewritten_when_its_edits_outgrow_both_limits(env: SimEnv) -> None:
    assert REWRITE_BYTES == 262_144
    versions = VersionSet.create(env, "/db", 1, ID, Version())
    for snapshot in (100, 262_144, 1 << 20):
        least = max(snapshot, 262_144)
        versions._snapshot_bytes = snapshot
        versions._end = snapshot + least
        assert not versions.needs_rewrite
        versions._end += 1
        assert versions.needs_rewrite
    versions.close()


def test_a_file_number_may_leap_so_far(env: SimEnv) -> None:
    assert NUMBER_LEAP_MAX == 2**32
    versions = VersionSet.create(env, "/db", 1, ID, Version())
    versions.close()
    last = versions.version.next_number + NUMBER_LEAP_MAX
    add(env, f"{last:08d}.table")
    assert VersionSet.recover(env, "/db").next_number == last + 1
    add(env, f"{last + 1:08d}.table")
    with pytest.raises(CorruptionError, match="no database gives this number") as caught:
        VersionSet.recover(env, "/db")
    assert (caught.value.file, caught.value.offset) == (f"/db/{last + 1:08d}.table", 0)


def test_a_new_folder_has_not_begun(env: SimEnv) -> None:
    add(env, "00000005.manifest")
    add(env, "x")
    found = VersionSet.recover(env, "/db")
    assert (found.is_new, found.is_tail_cut, found.iteration, found.manifest_number) == (
        True,
        False,
        0,
        0,
    )
    assert (found.unrelated, found.next_number, found.database_id) == (("x",), 6, b"")
    versions = VersionSet.create(env, "/db", 6, ID, Version())
    assert versions.iteration == 1
    assert "CURRENT.1.6" in env.list_dir("/db")
    versions.close()
    assert VersionSet.recover(env, "/db").unrelated == ("x",)


def test_the_highest_iteration_wins_as_a_number(env: SimEnv) -> None:
    """Iteration 10 sorts before 9 as text, and its number is the iteration of another marker."""
    stuck = FaultEnv(env, [FaultRule(kind="unlink", times=None)])
    for iteration, number in ((8, 9), (9, 10), (10, 11)):
        VersionSet.create(stuck, "/db", number, ID, Version(), iteration=iteration).close()
    names = [name for name in env.list_dir("/db") if name.startswith("CURRENT.")]
    assert sorted(names) == ["CURRENT.10.11", "CURRENT.8.9", "CURRENT.9.10"]

    class Unordered(FaultEnv):
        def list_dir(self, path: str) -> list[str]:
            return sorted(super().list_dir(path))

    found = VersionSet.recover(Unordered(env, []), "/db")
    assert (found.iteration, found.manifest_number) == (10, 11)


def test_files_of_an_attempt_that_failed_are_closed(env: SimEnv) -> None:
    for kind, site in (
        ("sync", "manifest.create.sync"),
        ("write", "manifest.create.write"),
        ("sync_dir", "manifest.marker.folder_sync"),
    ):
        number = VersionSet.recover(env, "/db").next_number
        rule = FaultRule(kind=kind, site=site)
        with pytest.raises(OSError):
            VersionSet.create(FaultEnv(env, [rule]), "/db", number, ID, Version(), iteration=number)
        assert env.unreturned() == [], site
        assert env.op_log


def test_a_rewrite_closes_the_manifest_it_leaves_and_one_that_failed(env: SimEnv) -> None:
    rule = FaultRule(kind="create", site="manifest.marker.create", error=errno.ENOSPC)
    versions = VersionSet.create(env, "/db", 1, ID, Version())
    open_before = env.unreturned()
    versions._env = FaultEnv(env, [rule])
    with pytest.raises(OSError):
        versions.rewrite(2)
    assert env.unreturned() == open_before
    versions.rewrite(3)
    assert len(env.unreturned()) == 1
    versions.close()
    assert env.unreturned() == []


def test_an_edit_without_room_is_cut_off_and_that_is_synced(env: SimEnv) -> None:
    rule = FaultRule(kind="write", site="manifest.edit.write", error=errno.ENOSPC, partial=30)
    versions = VersionSet.create(FaultEnv(env, [rule]), "/db", 1, ID, Version())
    before = versions.version
    size = versions.bytes_written
    undone = marks_seen().get("manifest.edit_undone", 0)
    done = env.op_count
    with pytest.raises(DiskFullError):
        versions.log(VersionEdit(next_number=50, settings_text="x" * 100))
    assert marks_seen()["manifest.edit_undone"] == undone + 1
    assert env.file_size("/db/00000001.manifest") == size
    assert [op.site for op in env.op_log[done:]][-2:] == [
        "manifest.edit.undo",
        "manifest.edit.undo_sync",
    ]
    assert versions.version == before
    versions.log(VersionEdit(next_number=60))
    versions.close()
    assert VersionSet.recover(env, "/db").version == versions.version
