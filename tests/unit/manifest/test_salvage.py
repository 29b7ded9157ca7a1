"""`salvage_edits`: which edits of damaged manifests are still read, and what they say together."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.codec import checksum
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.manifest import SalvagedEdits, VersionEdit, encode_edit, manifest_name, salvage_edits
from holdfast.manifest.format import (
    _RECORD,
    RECORD_MAGIC,
    Header,
    RecordHeader,
    encode_record,
)
from holdfast.sstable import TableInfo

FOLDER = "/db"
ID = bytes(range(16))


def info(number: int) -> TableInfo:
    return TableInfo(
        number=number, file_id=bytes(16), size_bytes=999, lower=b"a", upper=b"b", seq_min=1,
        seq_max=5, entry_count=3, delete_count=0, range_tombstone_count=0, raw_bytes=9,
        root_checksum=0, created_us=0,
    )  # fmt: skip


def manifest(
    edits: Sequence[tuple[int, VersionEdit]],
    *,
    alignment: int = 8,
    stored: int | None = None,
    database_id: bytes = ID,
) -> tuple[bytes, list[int]]:
    """A manifest with these edits, aligned to more than its header says when `stored` is given;
    and where its records begin.
    """
    header = Header(1, database_id, 77, alignment=alignment if stored is None else stored)
    data, chain, places = header.encode(), header.chain, []
    for number, edit in edits:
        places.append(len(data))
        record, chain = encode_record(
            encode_edit(edit), number, chain, 77, offset=len(data), alignment=alignment
        )
        data += record
    return data, places


def edit(number: int) -> VersionEdit:
    return VersionEdit(last_seq=number)


def salvaged(*contents: bytes, first: int = 1) -> SalvagedEdits:
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    for number, data in enumerate(contents, first):
        file = env.create(f"{FOLDER}/{manifest_name(number)}", site="test")
        file.write_at(0, data, site="test")
        file.close()
    # The numbers come in any order.
    found = salvage_edits(env, FOLDER, list(range(len(contents), 0, -1)))
    assert env.unreturned() == []
    return found


def seqs(found: SalvagedEdits) -> list[tuple[int, int | None]]:
    return [(number, each.last_seq) for number, each in found.edits]


def put(data: bytes, at: int, with_: bytes = b"?") -> bytes:
    return data[:at] + with_ + data[at + len(with_) :]


@pytest.mark.parametrize("alignment", [8, 16, 512, 4096])
def test_every_edit_around_damage_is_found(alignment: int) -> None:
    data, places = manifest([(number, edit(number)) for number in range(3, 8)], alignment=alignment)
    found = salvaged(data)
    assert seqs(found) == [(number, number) for number in range(3, 8)]
    assert found.database_id == ID
    for index, place in enumerate(places):
        for at in (place, place + 41):
            expected = [(number, number) for number in range(3, 8) if number != index + 3]
            assert seqs(salvaged(put(data, at))) == expected
    assert seqs(salvaged(data[: places[-1] + 42])) == [(number, number) for number in range(3, 7)]


@pytest.mark.parametrize("first", [1, 2, 7])
def test_a_gap_is_known(first: int) -> None:
    """Edits at the end may be gone without one."""
    data, places = manifest([(number, edit(number)) for number in range(first, first + 4)])
    assert salvaged(data).is_gapless
    for index, place in enumerate(places):
        for at in (place, place + 41):
            assert salvaged(put(data, at)).is_gapless == (index == 3)
    # A later manifest is the one that counts.
    assert salvaged(put(data, places[1]), data).is_gapless
    assert not salvaged(data, put(data, places[1])).is_gapless
    assert not salvaged().is_gapless


@pytest.mark.parametrize("alignment", [8, 512, 4096])
def test_an_alignment_that_is_damaged_hides_nothing(alignment: int) -> None:
    data, _ = manifest([(number, edit(number)) for number in range(1, 5)], alignment=alignment)
    for wrong in (0, 8, 7, 64, 512, 4096):
        found = salvaged(put(data, 12, wrong.to_bytes(4, "little")))
        assert seqs(found) == [(number, number) for number in range(1, 5)]


def test_later_manifests_take_the_place_of_earlier_ones() -> None:
    first, _ = manifest([(1, edit(1)), (2, edit(2)), (3, edit(3))])
    second, _ = manifest([(3, edit(30)), (4, edit(40))])
    assert seqs(salvaged(first, second)) == [(1, 1), (2, 2), (3, 30), (4, 40)]


def test_only_a_manifest_with_an_edit_says_whose_it_is() -> None:
    """A header that is damaged has an id, too."""
    first, _ = manifest([(1, edit(1))])
    second, places = manifest([(2, edit(2))], database_id=bytes(16))
    assert salvaged(first, put(second, places[0])).database_id == ID
    assert salvaged(first, second).database_id == bytes(16)
    assert salvaged(first, put(first, 40)).database_id == ID, "no salt, no edit"
    assert salvaged(put(first, places[0])).database_id == b""
    assert salvaged().edits == []


def test_what_cannot_be_read_is_left_out() -> None:
    data, _ = manifest([(1, edit(1))])
    env = FaultEnv(SimEnv(1))
    env.make_dir(FOLDER, site="test")
    for number in (1, 2, 3):
        content = data if number < 3 else data[:20]
        env.create(f"{FOLDER}/{manifest_name(number)}", site="test").write_at(
            0, content, site="test"
        )
    env.add(FaultRule(kind="read", path=manifest_name(1), times=None, error=errno.EIO))
    assert seqs(salvage_edits(env, FOLDER, [1, 2, 3, 4])) == [(1, 1)]
    assert seqs(salvage_edits(env, FOLDER, [1, 3, 4])) == []


def test_an_edit_that_says_nothing_is_left_out_alone() -> None:
    """Its checksum holds, and it cannot be decoded."""
    data, _ = manifest([(1, edit(1))])
    broken, chain = encode_record(b"\xff\xff", 2, 5, 77, offset=len(data))
    last, _ = encode_record(encode_edit(edit(3)), 3, chain, 77, offset=len(data) + len(broken))
    assert seqs(salvaged(data + broken + last)) == [(1, 1), (3, 3)]


def together(*edits: VersionEdit) -> SalvagedEdits:
    return SalvagedEdits(edits=list(enumerate(edits, 1)))


def test_a_table_that_came_again_is_not_gone() -> None:
    """One that moves to another level is removed and added in one edit."""
    added = VersionEdit(tables_added=((0, 0, info(1)), (0, 0, info(2)), (0, 0, info(3))))
    moved = VersionEdit(tables_removed=((0, 0, 1),), tables_added=((0, 1, info(1)),))
    removed = VersionEdit(tables_removed=((0, 0, 2),))
    found = together(added, moved, removed)
    assert found.removed() == {2}
    assert {number: each[:2] for number, each in found.tables().items()} == {
        1: (0, 1), 2: (0, 0), 3: (0, 0),
    }  # fmt: skip
    assert together(added, removed, added).removed() == set()


def test_what_edits_say_together() -> None:
    found = together(
        VersionEdit(keyspaces_created=((0, "a", KeyspaceSettings()), (1, "b", KeyspaceSettings()))),
        VersionEdit(settings_text="one", last_seq=9, durable_lsn=4),
        VersionEdit(keyspaces_dropped=(1,), settings_text="two", last_seq=7),
        VersionEdit(keyspaces_created=((2, "b", KeyspaceSettings()),)),
        VersionEdit(keyspaces_dropped=(5,)),
    )
    assert {number: name for number, (name, _) in found.keyspaces().items()} == {0: "a", 2: "b"}
    assert found.dropped() == {1, 5}
    other = KeyspaceSettings(level_ratio=3)
    tuned = together(
        *(each for _, each in found.edits), VersionEdit(keyspaces_changed={0: other, 1: other})
    )
    assert tuned.keyspaces() == {0: ("a", other), 2: ("b", KeyspaceSettings())}
    assert found.settings_text() == "two"
    assert [found.highest(name) for name in ("last_seq", "durable_lsn", "wal_first")] == [9, 4, 0]
    nothing = SalvagedEdits()
    assert (nothing.settings_text(), nothing.highest("last_seq")) == (None, 0)
    assert (nothing.removed(), nothing.dropped(), nothing.keyspaces()) == (set(), set(), {})


def test_the_newest_manifest_that_says_something_is_known() -> None:
    whole, _ = manifest([(3, edit(3))])
    assert salvaged().newest == 0
    assert salvaged(whole, whole).newest == 2
    assert salvaged(whole, put(whole, 80, b"????"), b"").newest == 1


def test_forged_records_that_claim_much_are_not_all_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would cost a checksum of what it claims: time would grow with the square of a file."""
    data, _ = manifest([(3, edit(3))])
    whole, size = data, 200
    while len(data) < size * 48:
        claimed = size * 48 - len(data)
        body = _RECORD.pack(RECORD_MAGIC, claimed, 9, 9, 7)
        data += body + checksum(body, 77).to_bytes(8, "little")
    data += bytes(1 << 14)
    looked: list[int] = []
    payload = RecordHeader.payload

    def count(self: RecordHeader, data: bytes, salt: int) -> bytes | None:
        looked.append(self.payload_bytes)
        return payload(self, data, salt)

    monkeypatch.setattr(RecordHeader, "payload", count)
    assert seqs(salvaged(data)) == [(3, 3)]
    # Once for each alignment that is tried.
    assert len(looked) < size
    assert sum(looked) < 4 * 6 * len(data)
    looked.clear()
    assert seqs(salvaged(whole)) == [(3, 3)]
    assert looked
