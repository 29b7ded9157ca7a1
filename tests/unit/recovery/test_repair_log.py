"""The replay of a damaged log: where it stops, what it puts back, and what it says is missing.

Each test writes a log, damages it, and lets it be replayed into memtables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from holdfast.base import DELETE, MERGE, PUT, RANGE_DELETE, CorruptionError, KeyspaceSettings
from holdfast.manifest import Version, VersionEdit
from holdfast.memtable import Memtable
from holdfast.recovery import Loss, LossKind, Outcome, RepairReport
from holdfast.recovery.repair_log import RunReplay, keyspaces_in
from holdfast.recovery.unknown import UnknownKeyspaces
from holdfast.wal import RecordBuffer, SalvagedLog, WriteBatch, salvage_log
from holdfast.wal.format import BLOCK_BYTES, RECORD_HEADER_BYTES, record_bytes
from tests.unit.wal.logs import FOLDER, Log, bytes_of, replace_bytes

Entries = list[tuple[int, int, bytes, bytes]]
"""(sequence number, kind, key, value)."""
BIG = b"x" * 1500
REASON = (
    "they name keyspaces that never existed, by number: 1, 2, 3, 4, 7 and 2 others. Nobody knows "
    "whose they are, so they were left out"
)


def log_of(count: int, value: bytes = b"v") -> Log:
    """A log with so many records of one put each, to keyspace 1."""
    log = Log(segment_bytes=8192)
    for number in range(count):
        log.append(value + b"%d" % number, durable=True)
    return log


def damaged(log: Log, *indexes: int, segment: int = 1) -> None:
    """Damage the payload of records of a segment, all of which have one size."""
    image = bytearray(bytes_of(log.env, segment))
    each = record_bytes(len(log.written[0][2]), 8)
    for index in indexes:
        image[BLOCK_BYTES + index * each + RECORD_HEADER_BYTES + 3] ^= 0xFF
    replace_bytes(log.env, segment, bytes(image))


def place(log: Log, index: int) -> int:
    return BLOCK_BYTES + index * record_bytes(len(log.written[0][2]), 8)


def version(
    flushed: int = 0, first_lsn: int = 1, durable: int = 0, settings: KeyspaceSettings | None = None
) -> Version:
    return Version().apply(
        VersionEdit(
            keyspaces_created=((1, "one", settings or KeyspaceSettings()),),
            flushed_seq={1: flushed},
            next_keyspace_id=2,
            next_number=1000,
            last_seq=flushed,
            wal_first=1,
            wal_first_lsn=first_lsn,
            durable_lsn=max(durable, first_lsn - 1, 0),
        )
    )


class Replayed:
    """What a replay gave to tables and said."""

    def __init__(
        self,
        log: Log,
        given: Version | None = None,
        *,
        keep: bool = False,
        is_trusted: bool = True,
        newest: Callable[[int, bytes], int] = lambda keyspace, key: 0,
        found: SalvagedLog | None = None,
    ) -> None:
        self.tables: list[Entries] = []
        self.tombstones: list[object] = []
        self.report = RepairReport(FOLDER, FOLDER)
        RunReplay(
            env=log.env,
            log=salvage_log(log.env, FOLDER) if found is None else found,
            report=self.report,
            keep_behind=keep,
            version=given or version(),
            is_trusted=is_trusted,
            take=self.take,
            newest=newest,
        ).run()

    def take(self, keyspace: int, memtable: Memtable) -> None:
        assert keyspace == 1
        assert memtable.frozen
        entries, cursor = [], memtable.cursor()
        has_more = cursor.seek_first()
        while has_more:
            entries.append((cursor.seq, cursor.kind, cursor.key, cursor.value))
            has_more = cursor.next()
        self.tables.append(entries)
        self.tombstones.extend(memtable.range_tombstones.tombstones())

    @property
    def seqs(self) -> list[int]:
        return sorted(seq for entries in self.tables for seq, _, _, _ in entries)

    @property
    def losses(self) -> list[tuple[str, int, int | None, str]]:
        assert all(loss.kind is LossKind.OPERATIONS for loss in self.report.losses)
        return [
            (loss.file.rpartition("/")[2], loss.offset, loss.count, loss.reason)
            for loss in self.report.losses
        ]


def test_a_whole_log_is_put_back_and_counted() -> None:
    log = log_of(5, BIG)
    found = Replayed(log)
    assert (found.seqs, found.losses) == ([1, 2, 3, 4, 5], [])
    # Two of them fit a segment; the END records count as records.
    assert (found.report.records, found.report.operations) == (7, 5)


def test_after_a_clean_end_the_log_is_not_looked_at() -> None:
    log = log_of(5)
    damaged(log, 2)
    ended = version(flushed=5, durable=5).apply(VersionEdit(clean=True))
    assert ended.clean
    found = Replayed(log, ended)
    assert (found.tables, found.losses) == ([], [])
    # Unless it was found out from the tables only.
    assert Replayed(log, ended, is_trusted=False).losses


def test_records_without_operations_put_nothing_back() -> None:
    """As the END records of segments: what these hold is no batch."""
    log = log_of(5, BIG)
    for is_trusted in (True, False):
        found = Replayed(log, is_trusted=is_trusted)
        assert (found.seqs, found.report.records, found.losses) == ([1, 2, 3, 4, 5], 7, [])


def test_operations_of_keyspaces_that_never_were_are_counted_and_left_out() -> None:
    edit = VersionEdit(next_number=1000, wal_first=1, wal_first_lsn=1)
    log = log_of(5)
    for keyspace in (9, 3, 2, 7, 8, 4, 9):
        written(log, (PUT, keyspace, b"a", b"1"))
    found = Replayed(log, Version().apply(edit))
    assert found.tables == []
    assert found.losses == [
        (
            "00000001.wal",
            BLOCK_BYTES,
            12,
            REASON,
        )
    ]


def test_what_tables_have_is_left_out() -> None:
    log = log_of(5)
    assert Replayed(log, version(flushed=3)).seqs == [4, 5]
    assert Replayed(log, version(flushed=5)).tables == []


def test_records_that_the_manifest_does_not_need_are_left_out() -> None:
    log = log_of(6, BIG)
    found = Replayed(log, version(first_lsn=4))
    assert (found.seqs, found.report.records) == ([3, 4, 5, 6], 5)
    assert Replayed(log, version(first_lsn=3)).report.records == 8
    assert Replayed(log, version(first_lsn=7)).seqs == [5, 6]
    assert Replayed(log, version(first_lsn=10)).tables == []


def test_a_replay_stops_where_something_is_missing() -> None:
    log = log_of(6)
    damaged(log, 2, 4)
    found = Replayed(log)
    assert found.seqs == [1, 2]
    assert found.losses == [
        (
            "00000001.wal",
            place(log, 2),
            4,
            (
                "records 3 to 3 are missing, operations 3 to 3. What was committed behind them was "
                "left out, 2 operations in records 4 to 6; keeping it is an option of the repair"
            ),
        )
    ]
    assert (found.report.records, found.report.operations) == (2, 2)


def test_what_is_behind_is_kept_on_request_and_each_gap_is_told() -> None:
    log = log_of(6)
    damaged(log, 1, 2, 4)
    found = Replayed(log, keep=True)
    assert found.seqs == [1, 4, 6]
    assert found.losses == [
        (
            "00000001.wal",
            place(log, 1),
            2,
            (
                "records 2 to 3 are missing, operations 2 to 3. The 2 operations behind them were "
                "kept, as was asked: a transaction there may rest on one that is missing"
            ),
        ),
        (
            "00000001.wal",
            place(log, 1),
            1,
            (
                "records 5 to 5 are missing, operations 5 to 5. The 1 operations behind them were "
                "kept, as was asked: a transaction there may rest on one that is missing"
            ),
        ),
    ]


def test_a_gap_at_the_front_has_an_unknown_number_of_operations() -> None:
    log = log_of(3)
    damaged(log, 0)
    found = Replayed(log)
    assert found.tables == []
    (loss,) = found.losses
    assert loss[:3] == ("00000001.wal", place(log, 0), None)
    assert loss[3].startswith("records 1 to 1 are missing. What was committed behind")
    (loss,) = Replayed(log, keep=True).losses
    assert loss[2] is None
    # Nothing is known to be missing where nobody says with which record the log begins.
    assert Replayed(log, version(first_lsn=0)).seqs == [2, 3]


def test_a_gap_that_tables_make_up_for_is_none() -> None:
    log = log_of(6)
    damaged(log, 2)
    found = Replayed(log, version(flushed=3))
    assert (found.seqs, found.losses) == ([4, 5, 6], [])
    assert Replayed(log, version(flushed=2)).losses
    # Whoever found the version out from tables does not know what they have.
    assert Replayed(log, version(flushed=3), is_trusted=False).losses


def test_a_gap_is_no_loss_only_when_every_keyspace_has_it_in_tables() -> None:
    log = log_of(6)
    damaged(log, 2)
    two = version(flushed=3).apply(
        VersionEdit(
            keyspaces_created=((2, "two", KeyspaceSettings()),),
            next_keyspace_id=3,
        )
    )
    assert Replayed(log, two).losses
    assert Replayed(log, two.apply(VersionEdit(flushed_seq={2: 3}))).losses == []
    damaged(log, 0)
    assert Replayed(log, Version(wal_first_lsn=1)).losses, "where there is none nothing is known"


def test_a_missing_record_without_operations_is_no_loss() -> None:
    """An END record of which only the numbers tell that it is missing."""
    log = log_of(4, BIG)
    image = bytearray(bytes_of(log.env, 1))
    end = place(log, 2)
    image[end + RECORD_HEADER_BYTES] ^= 0xFF
    replace_bytes(log.env, 1, bytes(image))
    for is_trusted in (True, False):
        found = Replayed(log, is_trusted=is_trusted)
        assert (found.seqs, found.losses) == ([1, 2, 3, 4], [])


def test_a_missing_segment_is_told_by_the_damage_nearest_to_it() -> None:
    log = log_of(8, BIG)
    log.env.unlink(f"{FOLDER}/00000002.wal", site="test")
    (loss,) = Replayed(log).losses
    # Nothing is damaged: the gap is told where what follows stands.
    assert loss[:3] == ("00000003.wal", BLOCK_BYTES, 6)
    damaged(log, 0, segment=4)
    assert [each[:2] for each in Replayed(log, keep=True).losses] == [
        ("00000003.wal", BLOCK_BYTES), ("00000004.wal", place(log, 0)),
    ]  # fmt: skip
    damaged(log, 1, segment=1)
    assert next(each[:2] for each in Replayed(log, keep=True).losses) == (
        "00000001.wal", place(log, 1),
    )  # fmt: skip


def test_durable_records_that_are_missing_at_the_end_are_told() -> None:
    log = log_of(4)
    assert Replayed(log, version(durable=4)).losses == []
    damaged(log, 3)
    reason = "records 4 to 4, the last of the log, are missing"
    assert Replayed(log, version(durable=4)).losses == [
        ("00000001.wal", place(log, 3), None, reason)
    ]
    assert Replayed(log, version(durable=3)).losses == []
    assert Replayed(log).losses == [], "whether it was durable nobody knows then"


def test_the_last_records_may_be_missing_with_their_segment() -> None:
    log = log_of(3, BIG)
    log.env.unlink(f"{FOLDER}/00000002.wal", site="test")
    reason = "records 4 to 9, the last of the log, are missing"
    assert Replayed(log, version(durable=9)).losses == [("db", 0, None, reason)]
    nothing = SalvagedLog()
    reason = "records 1 to 2, the last of the log, are missing"
    assert Replayed(log, version(first_lsn=0, durable=2), found=nothing).losses == [
        ("db", 0, None, reason)
    ]
    assert Replayed(log, version(first_lsn=0), found=nothing).losses == []
    reason = "records 1 to 1, the last of the log, are missing"
    nothing.damage.append(CorruptionError(f"{FOLDER}/LOCK", 5, "not of a segment"))
    assert Replayed(log, version(first_lsn=0, durable=1), found=nothing).losses == [
        ("LOCK", 5, None, reason)
    ]


def test_what_is_missing_at_the_front_is_told_by_any_damage_before_it() -> None:
    log = log_of(8, BIG)
    damaged(log, 0)
    damaged(log, 1)
    log.env.unlink(f"{FOLDER}/00000002.wal", site="test")
    found = salvage_log(log.env, FOLDER)
    found.runs[:] = [run for run in found.runs if run.segment > 1]
    (loss,) = Replayed(log, found=found).losses
    assert loss[:2] == ("00000001.wal", place(log, 0))
    found.damage[:] = [CorruptionError(f"{FOLDER}/LOCK", 5, "not of a segment")]
    (loss,) = Replayed(log, found=found).losses
    assert loss[:2] == ("LOCK", 5)


def test_a_log_knows_what_was_durable_itself() -> None:
    """Each record says which one before it was: one of which only that is left."""
    log = log_of(4)
    found = replace(salvage_log(log.env, FOLDER), durable_lsn=6)
    (loss,) = Replayed(log, found=found).losses
    assert loss[3] == "records 5 to 6, the last of the log, are missing"


def test_a_run_that_a_later_life_cut_short_is_counted_as_what_it_has() -> None:
    """And a life that begins with an END record does not know the numbers of those before it."""
    log = log_of(5)
    log.writer.close()
    later = Log(log.env, lsn_first=4, number=log.number)
    later.writer.begin_segment()
    later.seq = 4
    for _ in range(3):
        later.append(b"new", durable=True)
    segment = later.first + 1
    image = bytearray(bytes_of(log.env, segment))
    image[BLOCK_BYTES + record_bytes(len(later.written[0][2]), 8) + RECORD_HEADER_BYTES] ^= 0xFF
    replace_bytes(log.env, segment, bytes(image))
    found = Replayed(log)
    assert (found.seqs, found.report.operations) == ([1, 2, 3, 4], 4)
    (loss,) = found.losses
    assert loss[2] == 2
    assert "records 6 to 6 are missing, operations 5 to 5." in loss[3]


def test_memtables_are_handed_over_when_they_are_full() -> None:
    settings = KeyspaceSettings(memtable_bytes=8192)
    log = Log(segment_bytes=1 << 20)
    for number in range(100):
        log.append(b"y" * 1000 + b"%d" % number)
    for is_trusted in (True, False):
        found = Replayed(log, version(settings=settings), is_trusted=is_trusted)
        assert found.seqs == list(range(1, 101))
        assert len(found.tables) > 1
        # With a limit that is never met there is one table.
        assert len(Replayed(log, is_trusted=is_trusted).tables) == 1
    # One that grows record by record is handed over at its limit.
    assert [len(entries) for entries in found.tables[:2]] == [len(found.tables[0])] * 2
    assert 8192 // 1100 <= len(found.tables[0]) <= 9


def written(log: Log, *operations: tuple[int, int, bytes, bytes]) -> None:
    buffer, batch = RecordBuffer(), WriteBatch()
    for kind, keyspace, key, value in operations:
        if kind == PUT:
            batch.put(keyspace, key, value)
        elif kind == DELETE:
            batch.delete(keyspace, key)
        elif kind == MERGE:
            batch.merge(keyspace, key, "add", value)
        else:
            batch.delete_range(keyspace, key, value)
    buffer.append_batch(batch)
    log.writer.append(buffer, log.seq)
    log.seq += len(operations)


def test_without_a_manifest_only_what_no_table_has_is_put_back() -> None:
    log = Log()
    written(log, (PUT, 1, b"a", b"1"), (PUT, 2, b"a", b"?"), (DELETE, 1, b"b", b""))
    written(log, (PUT, 1, b"c", b"3"), (RANGE_DELETE, 1, b"d", b"f"), (PUT, 1, b"e", b""))
    known = {b"a": 1, b"c": 3}
    found = Replayed(log, is_trusted=False, newest=lambda keyspace, key: known.get(key, 0))
    assert [entries for entries in found.tables] == [
        [(3, DELETE, b"b", b""), (4, PUT, b"c", b"3"), (6, PUT, b"e", b"")]
    ]
    assert len(found.tombstones) == 1
    assert (found.report.records, found.report.operations) == (2, 6)
    known[b"c"] = 4
    found = Replayed(log, is_trusted=False, newest=lambda keyspace, key: known.get(key, 0))
    assert found.seqs == [3, 6]


def test_an_operation_of_a_keyspace_that_never_existed_is_set_aside_with_a_trusted_manifest() -> (
    None
):
    """The manifest knows of every keyspace before the log does: no writer made this. Everything
    else is put back, each once, what stands in the same record too.
    """
    log = log_of(2)
    written(
        log,
        (PUT, 1, b"a", b"1"),
        (RANGE_DELETE, 1, b"d", b"f"),
        (PUT, 2, b"b", b"2"),
        (PUT, 1, b"c", b"3"),
    )
    damaged(log, 0)
    found = Replayed(log, version(flushed=1))
    assert found.seqs == [2, 3, 6]
    assert len(found.tombstones) == 1
    ((file, offset, count, reason),) = found.losses
    assert (file, offset, count) == ("00000001.wal", place(log, 2), 1)
    assert "never existed, by number: 2. Nobody" in reason
    # One that was dropped is passed over.
    dropped = version(flushed=1).apply(VersionEdit(next_keyspace_id=3))
    found = Replayed(log, dropped)
    assert (found.seqs, found.losses) == ([2, 3, 6], [])


def test_the_end_of_a_segment_is_no_operation_of_a_keyspace_that_never_existed() -> None:
    log = log_of(1)
    written(log, (PUT, 2, b"b", b"2"))
    while len(log.writer.segments()) == 1:
        log.append(b"x" * 900, durable=True)
    (loss,) = Replayed(log).losses
    assert loss[2] == 1


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_log_that_goes_on_where_nothing_can_be_read_lost_an_unknown_number(
    is_trusted: bool,
) -> None:
    """What no later record knows to be durable was acknowledged all the same."""
    log = log_of(5, BIG)
    log.env.unlink(f"{FOLDER}/00000003.wal", site="test")
    found = Replayed(log, is_trusted=is_trusted)
    reason = "the log goes on in this segment, and what cannot be read of it is missing"
    assert (found.seqs, found.losses) == ([1, 2, 3, 4], [("00000003.wal", 0, None, reason)])
    # It is said once: a manifest may know how many there were.
    (loss,) = Replayed(log, version(durable=7), is_trusted=is_trusted).losses
    assert loss[2:] == (None, "records 7 to 7, the last of the log, are missing")
    # How many were left out behind a gap is not known either then.
    damaged(log, 1)
    (loss,) = Replayed(log, is_trusted=is_trusted).losses
    assert loss[2] is None
    assert "records 2 to 2 are missing" in loss[3]
    first, last = Replayed(log, is_trusted=is_trusted, keep=True).losses
    assert first[2] == 1
    assert last == ("00000003.wal", 0, None, reason)


def test_without_a_manifest_the_end_of_a_segment_is_no_operation() -> None:
    log = log_of(5, BIG)
    found = Replayed(log, is_trusted=False)
    assert (found.seqs, found.losses) == ([1, 2, 3, 4, 5], [])
    assert (found.report.records, found.report.operations) == (7, 5)


def test_keyspaces_that_only_the_log_knows_are_found() -> None:
    log = log_of(3, BIG)
    written(log, (PUT, 1, b"a", b"1"), (PUT, 7, b"a", b"?"), (DELETE, 9, b"b", b""))
    found = salvage_log(log.env, FOLDER)
    assert keyspaces_in(log.env, found, {}) == {1, 7, 9}
    assert keyspaces_in(log.env, found, {7: None}) == {1, 9}


def test_a_payload_that_no_writer_makes_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checksum holds; what an open refuses, a repair does not believe either."""

    def refuse(*_: object) -> Any:
        raise ValueError("it is malformed")

    monkeypatch.setattr(UnknownKeyspaces, "apply", refuse)
    log = log_of(3)
    with pytest.raises(CorruptionError, match="it is malformed") as raised:
        Replayed(log)
    assert (raised.value.file, raised.value.offset) == (f"{FOLDER}/00000001.wal", BLOCK_BYTES)


def test_what_a_loss_concerns() -> None:
    def loss(kind: LossKind = LossKind.ENTRIES, **known: object) -> Loss:
        return Loss(kind=kind, file="f", offset=1, reason="r", **known)  # type: ignore[arg-type]  # of the test

    assert loss().concerns("k", b"")
    assert loss(keyspace="k").concerns("k", b"x")
    assert not loss(keyspace="k").concerns("l", b"x")
    within = loss(lower=b"b", upper=b"d")
    assert [within.concerns("k", key) for key in (b"a", b"b", b"c", b"d")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert not loss(LossKind.CHANGES).concerns("k", b"x")
    assert not loss(LossKind.CHANGES, lower=b"a").concerns("k", b"x")
    assert not loss(LossKind.NAMES, keyspace="k").concerns("k", b"x")
    # Of all keyspaces: any may be missing or back.
    assert loss(LossKind.NAMES).concerns("k", b"x")
    assert loss(LossKind.NAMES, lower=b"a").concerns("k", b"x")


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, "entries (an unknown number) in all keyspaces: f, byte 1: r"),
        (
            {"keyspace": "k", "lower": b"a", "count": 3},
            "entries (3) in keyspace 'k', from b'a' to the last key: f, byte 1: r",
        ),
        (
            {"upper": b"z"},
            (
                "entries (an unknown number) in all keyspaces, from the first key to b'z', which "
                "is not in it: f, byte 1: r"
            ),
        ),
    ],
)
def test_a_loss_says_what_is_known_of_it(known: dict[str, object], text: str) -> None:
    loss = Loss(kind=LossKind.ENTRIES, file="f", offset=1, reason="r", **known)  # type: ignore[arg-type]  # of the test
    assert str(loss) == text


def test_a_report_says_all_that_is_known() -> None:
    report = RepairReport(
        "/old", "/new", outcome=Outcome.REPAIRED_WITH_LOSS, tables_kept=1, tables_rebuilt=2,
        entries_rebuilt=3, records=4, operations=5,
    )  # fmt: skip
    assert report.is_changed
    report.lose(Loss(kind=LossKind.ENTRIES, file="f", offset=1, reason="r"))
    report.notes += ["one", "two"]
    lines = [
        "/new: repaired with loss",
        "kept: 1 tables as they are, 3 entries of 2 rebuilt tables, 5 operations of 4 log records",
        "lost: entries (an unknown number) in all keyspaces: f, byte 1: r",
        "note: one",
        "note: two",
        "the originals in /old were not touched",
    ]
    assert str(report).splitlines() == lines
    report.set_aside = "/old/damaged-1"
    lines[-1] = "the originals of what is not used any more are in /old/damaged-1"
    assert str(report).splitlines() == lines
    healthy = RepairReport("/old", "/new")
    assert not healthy.is_changed
    assert str(healthy) == "/old: no damage found; nothing was changed"
    counts = (healthy.tables_kept, healthy.tables_rebuilt, healthy.tables_lost)
    assert (*counts, healthy.entries_rebuilt, healthy.records, healthy.operations) == (0,) * 6


class Counted(list[Any]):
    """A list that counts how often it is gone through, or a part of it is copied."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self.walks += isinstance(index, slice)
        return super().__getitem__(index)


def test_a_log_with_many_gaps_is_not_gone_through_for_each() -> None:
    log = log_of(30)
    damaged(log, *range(1, 30, 2))
    found = salvage_log(log.env, FOLDER)
    found.runs, found.damage = runs, damage = Counted(found.runs), Counted(found.damage)
    replayed = Replayed(log, keep=True, found=found)
    # The last record is damaged, and nothing is known to be missing behind it.
    reasons = [loss.reason for loss in replayed.report.losses]
    assert len(reasons) == len(damage) - 1 == 14
    for count, reason in zip(range(14, 0, -1), reasons, strict=True):
        assert f"The {count} operations behind them" in reason
    assert max(runs.walks, damage.walks) <= 3
