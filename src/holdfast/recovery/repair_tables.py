"""The tables of a repair: which of them are whole, and what is left of the others.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

from holdfast.base import CorruptionError, FormatError, unpack_trailer
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression
from holdfast.compaction import Plan, run_compaction
from holdfast.crypto import SealedEnv, plain_env
from holdfast.env import Env, File
from holdfast.merge import Merges
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.repair_report import Loss, LossKind, RepairReport
from holdfast.sstable import (
    FOOTER_BYTES,
    TABLE_MAGIC,
    Footer,
    TableInfo,
    TableOrigin,
    TableReader,
    TableSalvage,
    TableWriter,
    opened_for_salvage,
    table_name,
)

_POOL_BYTES: Final = 4 << 20
_FILE_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A table of the repaired database: one that was whole, or what was written anew."""

    info: TableInfo
    folder: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What can be seen of a table without the manifest."""

    info: TableInfo | None = None
    origin: TableOrigin | None = None
    is_ingested: bool = False
    error: CorruptionError | None
    """Its first damage."""
    is_readable: bool = True
    """Whether anything of it can be read."""


@dataclass(slots=True, kw_only=True)
class Workshop:
    """Where tables are read and written."""

    env: Env
    folder: str
    """Of the damaged database."""
    target: str
    """Of the repaired one."""
    numbers: FileNumbers
    merges: Merges
    report: RepairReport

    # --- reading

    def problem(self, info: TableInfo) -> CorruptionError | None:
        """Return the first damage of a table, None when every byte of it is right.

        Raises: FormatError when it is of a newer version.
        """
        path = f"{self.folder}/{table_name(info.number)}"
        try:
            with closing(self.env.open(path)) as file:
                reader = TableReader(file, info.number, info.file_id, BufferPool(_POOL_BYTES), info)
                return next(iter(reader.verify()), None)
        except FileNotFoundError:
            return CorruptionError(path, 0, "the table is missing")
        except CorruptionError as error:
            return error
        except FormatError as error:
            self._refuse_newer(path, error)
            return CorruptionError(path, 0, str(error))
        except OSError as error:
            return CorruptionError(path, 0, f"it cannot be read: {error}")

    def _refuse_newer(self, path: str, error: FormatError) -> None:
        """Raise the error when it is about a newer version, and not about damage."""
        with closing(self.open_raw(path)) as file:
            magic = file.read_at(max(file.size() - FOOTER_BYTES, 0), len(TABLE_MAGIC))
        if magic == TABLE_MAGIC:
            raise error

    def open_raw(self, path: str) -> File:
        """Open a table that may be damaged. Raises: CorruptionError, FormatError; OSError."""
        if not isinstance(self.env, SealedEnv):
            return self.env.open(path)
        file = self.env.plain.open(path)
        try:
            return opened_for_salvage(file, self.env.ring)
        except BaseException:
            file.close()
            raise

    def look(self, number: int, info: TableInfo | None) -> Look:
        """Look at a table that the manifest in force does not describe; `info` is what an edit
        says about it. Raises: FormatError when it is of a newer version.
        """
        path = f"{self.folder}/{table_name(number)}"
        try:
            with closing(self.env.open(path)) as file:
                found = _look(file, number, info)
        except CorruptionError as error:
            found = Look(error=error)
        except FormatError as error:
            self._refuse_newer(path, error)
            found = Look(error=CorruptionError(path, 0, str(error)))
        except OSError as error:
            found = Look(error=CorruptionError(path, 0, f"it cannot be read: {error}"))
        if found.error is None or found.info is not None:
            return found
        salvage = self.salvage(number, info)
        if salvage is None:
            return Look(info=info, error=found.error, is_readable=False)
        return Look(
            info=salvage.info,
            origin=salvage.origin,
            is_ingested=salvage.is_ingested,
            error=found.error,
            is_readable=not salvage.is_empty,
        )

    def salvage(self, number: int, info: TableInfo | None) -> TableSalvage | None:
        """Return what is left of a table, None when nothing can be read of it. Only its own
        description is of use when the call has returned.
        """
        try:
            with closing(self.open_raw(f"{self.folder}/{table_name(number)}")) as file:
                return TableSalvage(file, number, info)
        except (CorruptionError, FormatError, OSError):
            return None

    # --- writing

    def rebuild(
        self,
        number: int,
        info: TableInfo | None,
        origin: TableOrigin,
        *,
        error: CorruptionError,
        stamp: int = 0,
    ) -> Piece | None:
        """Write what can be read of a damaged table to a new one, and report what cannot. `stamp`
        is the number of all entries of an ingested table that no `info` describes. Return None when
        nothing can be read. Raises: OSError of writing.
        """
        path = f"{self.folder}/{table_name(number)}"
        try:
            file = self.open_raw(path)
        except (CorruptionError, FormatError, OSError):
            self.lose_table(info, origin, error)
            return None
        with closing(file):
            try:
                salvage = TableSalvage(file, number, info, stamp=stamp)
            except (CorruptionError, OSError):
                self.lose_table(info, origin, error)
                return None
            return self.rewrite(salvage, origin, error=error)

    def rewrite(
        self, salvage: TableSalvage, origin: TableOrigin, *, error: CorruptionError
    ) -> Piece | None:
        """Write what a salvage found. See `rebuild`."""
        if salvage.is_empty:
            self.lose_table(salvage.info, origin, error)
            return None
        self._report_gaps(salvage, origin, error)
        written = self._write(salvage, origin.replacing(frozenset({salvage.number})))
        self.report.tables_rebuilt += 1
        self.report.entries_rebuilt += written.entry_count
        return Piece(info=written, folder=self.target, is_new=True)

    def _write(self, salvage: TableSalvage, origin: TableOrigin) -> TableInfo:
        number = self.numbers.allocate()
        path = f"{self.target}/{table_name(number)}"
        file_id = self.env.random_bytes(_FILE_ID_BYTES)
        with TableWriter(
            self.env,
            path,
            number,
            file_id,
            settings=origin.settings,
            compression=Compression.from_name(origin.settings.compression),
            origin=origin.encode(),
            site="repair.write",
        ) as writer:
            for key, trailer, value in salvage.entries():
                seq, kind = unpack_trailer(trailer)
                writer.add(key, seq, kind, value)
            for start, stop, seq in salvage.tombstones:
                writer.add_range_tombstone(start, stop, seq)
            return writer.finish()

    def check_written(self, pieces: Iterable[Piece]) -> None:
        """Read new tables back, whole, before anything relies on them. Raises: CorruptionError."""
        for piece in pieces:
            path = f"{piece.folder}/{table_name(piece.info.number)}"
            with closing(self.env.open(path)) as file:
                info = piece.info
                reader = TableReader(file, info.number, info.file_id, BufferPool(_POOL_BYTES), info)
                for error in reader.verify():
                    raise error

    def make_durable(self, names: Iterable[str]) -> None:
        """Sync tables that are used where they are. Without a manifest nothing says that they ever
        were synced: whoever wrote them may have been killed before that. Raises: OSError.
        """
        if self.target == self.folder:
            for name in names:
                with closing(plain_env(self.env).open(f"{self.folder}/{name}")) as file:
                    file.sync(site="repair.kept.sync")

    def merge(self, pieces: Sequence[Piece], origin: TableOrigin) -> list[Piece]:
        """Write tables whose ranges overlap anew as disjoint ones, with what is newest of each key.
        Raises: OSError, CorruptionError.
        """
        tables = tuple(piece.info for piece in pieces)
        folders = {piece.info.number: piece.folder for piece in pieces}
        plan = Plan(
            keyspace=origin.keyspace,
            level=0,
            inputs=((0, tables),),
            output_level=1,
            is_move=False,
            is_bottom=False,
            lower=min(table.lower for table in tables),
            upper=max(table.upper for table in tables),
            reason="repair",
        )
        with Readers(self.env) as readers:
            result = run_compaction(
                plan,
                self.env,
                self.target,
                open_table=lambda info: readers.open(folders[info.number], info),
                allocate_number=self.numbers.allocate,
                snapshots=[],
                settings=origin.settings,
                merges=self.merges,
                origin=origin,
            )
        return [Piece(info=info, folder=self.target, is_new=True) for info in result.tables]

    # --- reporting

    def lose_table(
        self, info: TableInfo | None, origin: TableOrigin | None, error: CorruptionError
    ) -> None:
        """Report that nothing of a table can be read, as far as it is known what it held."""
        self.report.tables_lost += 1
        entries = None if info is None else info.entry_count
        deletes = None if info is None else info.range_tombstone_count
        for kind, count in ((LossKind.ENTRIES, entries), (LossKind.DELETES, deletes)):
            if count != 0:
                self.report.lose(
                    Loss(
                        kind=kind,
                        file=error.file,
                        offset=error.offset,
                        keyspace=None if origin is None else origin.name,
                        lower=None if info is None else info.lower,
                        upper=None if info is None else info.upper,
                        count=count,
                        reason=error.reason,
                    )
                )

    def _report_gaps(
        self, salvage: TableSalvage, origin: TableOrigin, error: CorruptionError
    ) -> None:
        info = salvage.info
        for gap in salvage.gaps:
            self.report.lose(
                Loss(
                    kind=LossKind.ENTRIES,
                    file=salvage.name,
                    offset=gap.offset,
                    keyspace=origin.name,
                    lower=gap.lower,
                    upper=gap.upper,
                    count=salvage.lost_entries if len(salvage.gaps) == 1 else None,
                    reason=f"{gap.size} bytes cannot be read: {error.reason}",
                )
            )
        if salvage.lost_tombstones != 0:
            self.report.lose(
                Loss(
                    kind=LossKind.DELETES,
                    file=salvage.name,
                    offset=error.offset,
                    keyspace=origin.name,
                    lower=None if info is None else info.lower,
                    upper=None if info is None else info.upper,
                    count=salvage.lost_tombstones,
                    reason=error.reason,
                )
            )


def _look(file: File, number: int, info: TableInfo | None) -> Look:
    size = file.size()
    footer = Footer.decode(file.read_at(max(size - FOOTER_BYTES, 0), FOOTER_BYTES), file.name, size)
    file_id = footer.file_id if info is None else info.file_id
    reader = TableReader(file, number, file_id, BufferPool(_POOL_BYTES), info)
    packed = reader.properties.get(b"origin")
    origin = None
    if packed is not None:
        # One that cannot be decoded although its checksum holds says nothing.
        with suppress(ValueError):
            origin = TableOrigin.decode(packed)
    return Look(
        info=reader.info,
        origin=origin,
        is_ingested=footer.is_ingested,
        error=next(iter(reader.verify()), None),
    )


class Readers:
    """Open tables, closed together."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._pool = BufferPool(_POOL_BYTES)
        self._open: dict[int, TableReader] = {}

    def open(self, folder: str, info: TableInfo) -> TableReader:
        """Return the open reader of a table. Raises: CorruptionError, FormatError; OSError."""
        found = self._open.get(info.number)
        if found is None:
            file = self._env.open(f"{folder}/{table_name(info.number)}")
            try:
                found = TableReader(file, info.number, info.file_id, self._pool, info)
            except BaseException:
                file.close()
                raise
            self._open[info.number] = found
        return found

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._open.values():
            reader.close()


def components(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in groups whose ranges are disjoint, in key order; within a group they overlap,
    each with some other.
    """
    group: list[Piece] = []
    upper = b""
    for piece in sorted(pieces, key=lambda piece: (piece.info.lower, piece.info.number)):
        if group and piece.info.lower >= upper:
            yield group
            group = []
        upper = max(upper, piece.info.upper) if group else piece.info.upper
        group.append(piece)
    if group:
        yield group
