"""The tables of a repair: what is wrong with one, what is left of it, what is said to be gone."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

import pytest

from holdfast.base import (
    DELETE,
    PUT,
    SEQ_MAX,
    CorruptionError,
    FormatError,
    KeyspaceSettings,
)
from holdfast.codec import Compression, checksum
from holdfast.crypto import KeyRing, KeySource
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.merge import Merges
from holdfast.recovery import LossKind, RepairReport
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.repair_tables import Piece, Readers, Workshop
from holdfast.recovery.sealing import sealed_env
from holdfast.sstable import FOOTER_BYTES, TableInfo, TableOrigin, TableWriter, table_name

FOLDER, TARGET = "/db", "/new"
SETTINGS = KeyspaceSettings(page_bytes=512, compression="none")
ORIGIN = TableOrigin(keyspace=3, name="three", settings=SETTINGS, replaces=(1, 2))
DAMAGE = CorruptionError("/db/x", 7, "a test")


class Bench:
    """A folder with tables, and a workshop over it."""

    def __init__(self, *, is_sealed: bool = False) -> None:
        self.is_sealed = is_sealed
        self.machine = FaultEnv(SimEnv(1))
        for folder in (FOLDER, TARGET):
            self.machine.make_dir(folder, site="test")
        env: Any = self.machine
        if is_sealed:
            ring = KeyRing.create(self.machine, FOLDER, KeySource(bytes(range(32))))
            env = sealed_env(self.machine, FOLDER, ring)
        self.shop = Workshop(
            env=env,
            folder=FOLDER,
            target=TARGET,
            numbers=FileNumbers(env, 100),
            merges=Merges(None),
            report=RepairReport(FOLDER, TARGET),
        )

    def table(
        self,
        number: int,
        keys: Iterable[int] = range(100),
        *,
        seq: int = 1,
        tombstones: Iterable[tuple[bytes, bytes, int]] = (),
        is_ingested: bool = False,
        origin: bytes = ORIGIN.encode(),
    ) -> TableInfo:
        with TableWriter(
            self.shop.env, path(number), number, bytes([number] * 16), settings=SETTINGS,
            compression=Compression.NONE, origin=origin, is_ingested=is_ingested, site="test",
        ) as writer:  # fmt: skip
            for key in keys:
                writer.add(b"%05d" % key, seq, PUT, b"value %d" % number)
            for start, stop, at in tombstones:
                writer.add_range_tombstone(start, stop, at)
            return writer.finish()

    def change(self, number: int, at: int, data: bytes) -> None:
        stored = self.stored(number)
        at %= len(stored)
        self.replace(number, stored[:at] + data + stored[at + len(data) :])

    def stored(self, number: int) -> bytes:
        file = self.machine.open(path(number))
        data = file.read_at(0, 1 << 30)
        file.close()
        return data

    def replace(self, number: int, data: bytes) -> None:
        self.machine.unlink(path(number), site="test")
        file = self.machine.create(path(number), site="test")
        file.write_at(0, data, site="test")
        file.close()

    def rows(self, piece: Piece) -> dict[bytes, tuple[int, int, bytes]]:
        """Number, kind and value of the newest version of each of the keys that are used here."""
        with Readers(self.shop.env) as readers:
            reader = readers.open(piece.folder, piece.info)
            found = {b"%05d" % key: reader.get(b"%05d" % key, SEQ_MAX) for key in range(130)}
        return {key: version for key, version in found.items() if version is not None}

    @property
    def losses(self) -> list[tuple[LossKind, str, int, bytes | None, bytes | None, int | None]]:
        assert {loss.keyspace for loss in self.shop.report.losses} <= {"three"}
        return [
            (loss.kind, loss.file, loss.offset, loss.lower, loss.upper, loss.count)
            for loss in self.shop.report.losses
        ]

    def is_returned(self) -> bool:
        return self.machine.inner.unreturned() == []


def path(number: int, folder: str = FOLDER) -> str:
    return f"{folder}/{table_name(number)}"


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(is_sealed=request.param)


# --- reading


def test_a_table_that_is_whole_has_no_problem_and_others_say_theirs(bench: Bench) -> None:
    info = bench.table(7)
    assert bench.shop.problem(info) is None
    bench.change(7, 700, b"????")
    error = bench.shop.problem(info)
    assert error is not None
    assert error.file == path(7)
    bench.change(7, -1, b"?")
    assert bench.shop.problem(info) is not None
    bench.replace(7, b"short")
    assert bench.shop.problem(info) is not None
    bench.machine.unlink(path(7), site="test")
    error = bench.shop.problem(info)
    assert error is not None
    assert (error.file, error.offset, error.reason) == (path(7), 0, "the table is missing")
    assert bench.is_returned()


def test_a_table_that_the_disk_does_not_give_has_a_problem() -> None:
    bench = Bench()
    info = bench.table(7)
    bench.machine.add(FaultRule(kind="read", path=table_name(7), times=None, error=errno.EIO))
    for error in (bench.shop.problem(info), bench.shop.look(7, None).error):
        assert error is not None
        assert error.reason.startswith("it cannot be read: ")
        assert error.offset == 0
    assert bench.is_returned()


def test_a_table_of_another_format_is_damage_and_one_of_a_newer_version_is_refused() -> None:
    bench = Bench()
    info = bench.table(7)
    whole = bench.stored(7)
    bench.change(7, -FOOTER_BYTES, b"HTTPTABL")
    for error in (bench.shop.problem(info), bench.shop.look(7, None).error):
        assert error is not None
        assert error.reason == "the magic of the footer is damaged"
    bench.change(7, -1, b"?")
    for error in (bench.shop.problem(info), bench.shop.look(7, None).error):
        assert error is not None
        assert (error.file, error.offset) == (path(7), 0)
        assert error.reason == f"{path(7)}: not a Holdfast table"
    footer = bytearray(whole[-FOOTER_BYTES:])
    footer[8] = 9
    footer[-8:] = checksum(bytes(footer[:-8])).to_bytes(8, "little")
    bench.replace(7, whole[:-FOOTER_BYTES] + footer)
    for look in (lambda: bench.shop.problem(info), lambda: bench.shop.look(7, None)):
        with pytest.raises(FormatError, match="table format version 9"):
            look()
    assert bench.is_returned()


def test_an_error_about_the_format_is_believed_of_what_is_a_table() -> None:
    bench = Bench()
    bench.table(7)
    with pytest.raises(FormatError, match="newer"):
        bench.shop._refuse_newer(path(7), FormatError("newer"))
    for content in (b"?" + bench.stored(7)[-FOOTER_BYTES + 1 :], b"short", b""):
        bench.replace(7, content)
        bench.shop._refuse_newer(path(7), FormatError("newer"))
    assert bench.is_returned()


def test_what_can_be_seen_of_a_table_that_is_whole(bench: Bench) -> None:
    info = bench.table(7)
    for known in (None, info):
        look = bench.shop.look(7, known)
        assert (look.info, look.origin, look.error) == (info, ORIGIN, None)
        assert look.is_readable
        assert not look.is_ingested
    bench.table(8, seq=0, is_ingested=True, origin=b"")
    look = bench.shop.look(8, None)
    assert (look.origin, look.is_ingested) == (None, True)
    bench.table(9, origin=b"\xff\xff")
    assert bench.shop.look(9, None).origin is None, "one that says nothing"
    assert bench.is_returned()


def test_what_can_be_seen_of_a_damaged_table(bench: Bench) -> None:
    info = bench.table(7)
    bench.change(7, 700, b"????")
    look = bench.shop.look(7, None)
    assert look.error is not None
    assert (look.info, look.origin, look.is_readable) == (info, ORIGIN, True)
    # Its footer is gone: what an edit says of it, and its pages, are left.
    bench.replace(7, bench.stored(7)[:1500])
    look = bench.shop.look(7, info)
    assert look.error is not None
    # Of a sealed one the footer has what its key is made of.
    assert (look.info, look.is_readable) == (info, not bench.is_sealed)
    bench.replace(7, b"nothing of it")
    look = bench.shop.look(7, info)
    assert look.error is not None
    assert (look.info, look.is_readable) == (info, False)
    look = bench.shop.look(7, None)
    assert (look.info, look.origin, look.is_readable) == (None, None, False)
    assert not look.is_ingested
    assert bench.is_returned()


# --- writing


def test_what_is_left_of_a_table_is_written_anew(bench: Bench) -> None:
    tombstones = [(b"00200", b"00300", 9)]
    info = bench.table(7, tombstones=tombstones)
    bench.change(7, 700, b"????")
    piece = bench.shop.rebuild(7, info, ORIGIN, error=DAMAGE)
    assert piece is not None
    assert (piece.info.number, piece.folder, piece.is_new) == (100, TARGET, True)
    assert piece.info.range_tombstone_count == 1
    rows = bench.rows(piece)
    assert 50 < len(rows) < 100
    assert set(rows.values()) == {(1, PUT, b"value 7")}
    report = bench.shop.report
    assert (report.tables_rebuilt, report.entries_rebuilt, report.tables_lost) == (1, len(rows), 0)
    ((kind, file, offset, lower, upper, count),) = bench.losses
    assert (kind, file, count) == (LossKind.ENTRIES, path(7), 100 - len(rows))
    assert offset < 704
    missing = {b"%05d" % key for key in range(100)} - rows.keys()
    assert lower is not None
    assert upper is not None
    assert all(lower <= key < upper for key in missing)
    assert bench.shop.report.losses[0].reason.endswith("bytes cannot be read: a test")
    # It says whose it is, and what it stands for.
    look = Workshop(
        env=bench.shop.env, folder=TARGET, target=TARGET, numbers=bench.shop.numbers,
        merges=bench.shop.merges, report=report,
    ).look(100, None)  # fmt: skip
    assert look.origin == ORIGIN.replacing(frozenset({7}))
    bench.shop.check_written([piece])
    assert bench.is_returned()


def test_range_deletes_that_cannot_be_read_are_said() -> None:
    bench = Bench()
    info = bench.table(7, tombstones=[(b"00200", b"00300", 9), (b"00400", b"00500", 10)])
    bench.replace(7, bench.stored(7)[:1500])
    piece = bench.shop.rebuild(7, info, ORIGIN, error=DAMAGE)
    assert piece is not None
    assert [loss for loss in bench.losses if loss[0] is LossKind.DELETES] == [
        (LossKind.DELETES, path(7), 7, info.lower, info.upper, 2)
    ]
    # Of one that nothing describes nobody knows how many there were.
    bench.shop.report.losses.clear()
    assert bench.shop.rebuild(7, None, ORIGIN, error=DAMAGE) is None or [
        loss[3:] for loss in bench.losses if loss[0] is LossKind.DELETES
    ] == [(None, None, None)]


@pytest.mark.parametrize("content", [b"nothing of it", b""])
def test_a_table_of_which_nothing_is_left_is_lost(bench: Bench, content: bytes) -> None:
    info = bench.table(7, tombstones=[(b"00200", b"00300", 9)])
    bench.replace(7, content)
    assert bench.shop.rebuild(7, info, ORIGIN, error=DAMAGE) is None
    assert bench.losses == [
        (LossKind.ENTRIES, "/db/x", 7, info.lower, info.upper, 100),
        (LossKind.DELETES, "/db/x", 7, info.lower, info.upper, 1),
    ]
    assert bench.shop.report.tables_lost == 1
    assert bench.machine.list_dir(TARGET) == []
    bench.machine.unlink(path(7), site="test")
    assert bench.shop.rebuild(7, info, ORIGIN, error=DAMAGE) is None
    assert bench.shop.report.tables_lost == 2
    assert bench.is_returned()


@pytest.mark.parametrize("kind", ["open", "size", "read"])
def test_a_table_that_the_disk_does_not_give_is_lost(kind: str) -> None:
    bench = Bench()
    info = bench.table(7)
    bench.machine.add(FaultRule(kind=kind, path=table_name(7), times=None, error=errno.EIO))
    assert bench.shop.rebuild(7, info, ORIGIN, error=DAMAGE) is None
    assert bench.losses == [(LossKind.ENTRIES, "/db/x", 7, info.lower, info.upper, 100)]
    assert bench.shop.report.tables_lost == 1
    assert bench.is_returned()


def test_a_lost_table_loses_what_it_is_known_to_have_had() -> None:
    bench = Bench()
    info = bench.table(7)
    bench.shop.lose_table(info, ORIGIN, DAMAGE)
    assert bench.losses == [(LossKind.ENTRIES, "/db/x", 7, info.lower, info.upper, 100)]
    bench = Bench()
    bench.shop.lose_table(None, None, DAMAGE)
    assert [
        (loss.kind, loss.keyspace, loss.lower, loss.upper, loss.count)
        for loss in bench.shop.report.losses
    ] == [(LossKind.ENTRIES, None, None, None, None), (LossKind.DELETES, None, None, None, None)]


def test_what_was_written_is_read_back_before_it_is_relied_on() -> None:
    bench = Bench()
    piece = Piece(info=bench.table(7), folder=FOLDER, is_new=True)
    bench.shop.check_written([piece])
    bench.change(7, 700, b"????")
    with pytest.raises(CorruptionError):
        bench.shop.check_written([piece])
    assert bench.is_returned()


def test_tables_that_overlap_become_one_run_with_what_is_newest(bench: Bench) -> None:
    older = Piece(info=bench.table(7, range(60), seq=5), folder=FOLDER, is_new=False)
    newer = Piece(info=bench.table(8, range(40, 130), seq=9), folder=FOLDER, is_new=False)
    for order in ([older, newer], [newer, older]):
        merged = bench.shop.merge(order, ORIGIN)
        assert all(piece.is_new and piece.folder == TARGET for piece in merged)
        assert all(piece.info.number >= 100 for piece in merged)
        found = {key: row for piece in merged for key, row in bench.rows(piece).items()}
        assert {key: row[2] for key, row in found.items()} == {
            b"%05d" % key: b"value 7" if key < 40 else b"value 8" for key in range(130)
        }
        bench.shop.check_written(merged)
    assert bench.is_returned()


def test_deletes_stay_in_a_run_that_others_may_lie_under() -> None:
    """Nothing says that no older table has what they delete."""
    bench = Bench()
    with TableWriter(
        bench.shop.env, path(8), 8, bytes(16), settings=SETTINGS, compression=Compression.NONE,
        origin=b"", site="test",
    ) as writer:  # fmt: skip
        writer.add(b"00001", 9, DELETE, b"")
        info = writer.finish()
    pieces = [
        Piece(info=bench.table(7, range(5)), folder=FOLDER, is_new=False),
        Piece(info=info, folder=FOLDER, is_new=False),
    ]
    (merged,) = bench.shop.merge(pieces, ORIGIN)
    assert bench.rows(merged)[b"00001"] == (9, DELETE, b"")


def test_a_file_that_does_not_open_for_salvage_is_closed() -> None:
    bench = Bench(is_sealed=True)
    bench.table(7)
    bench.replace(7, b"")
    with pytest.raises((CorruptionError, FormatError)):
        bench.shop.open_raw(path(7))
    assert bench.is_returned()
