"""A repair with a manifest that can be relied on: it says which tables there are, where they lie,
and what of the log is in them.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from holdfast.manifest import (
    KeyspaceVersion,
    Recovered,
    Version,
    VersionEdit,
    manifest_name,
    parse_numbered,
)
from holdfast.memtable import Memtable
from holdfast.recovery.needed import needed_tables, stored_settings
from holdfast.recovery.repair_build import Repaired, flush_replayed
from holdfast.recovery.repair_log import RunReplay
from holdfast.recovery.repair_report import Loss, LossKind
from holdfast.recovery.repair_survey import MARKER_PREFIX, NUMBER_LEAP_MAX, Survey
from holdfast.recovery.repair_tables import Piece, Workshop
from holdfast.recovery.replay import replay
from holdfast.recovery.unknown import UnknownKeyspaces
from holdfast.sstable import TableInfo, table_name


def repair_trusted(
    workshop: Workshop,
    manifest: Recovered,
    found: Survey,
    names: list[str],
    *,
    keep_behind: bool,
) -> Repaired:
    """Rebuild the damaged tables and replay the log. Raises: OSError; CorruptionError when a file
    changes meanwhile.
    """
    version = manifest.version
    tables = _Tables(workshop)
    for owner, level, info in needed_tables(version):
        tables.check(owner, level, info)
    last_seq, last_lsn = version.last_seq, version.durable_lsn
    flushed = tables.flushed

    def take(keyspace: int, memtable: Memtable) -> None:
        flushed.extend(
            (keyspace, piece)
            for piece in flush_replayed(workshop, version.keyspaces[keyspace], memtable)
        )

    if found.log is None:
        unknown = UnknownKeyspaces()
        replayed = replay(
            workshop.env,
            workshop.folder,
            manifest,
            stored_settings(manifest),
            on_full=take,
            unknown=unknown,
        )
        unknown.report(workshop.report)
        for keyspace, memtable in replayed.memtables.items():
            if memtable.seq_min:
                memtable.freeze()
                take(keyspace, memtable)
        last_seq, last_lsn = replayed.last_seq, replayed.last_lsn
        workshop.report.records = replayed.records
        if found.is_marked:
            # Without the marker that is all the damage, whichever file it is said of.
            _note_kept_segments(workshop, version.wal_first)
    else:
        RunReplay(
            env=workshop.env,
            log=found.log,
            report=workshop.report,
            keep_behind=keep_behind,
            version=version,
            is_trusted=True,
            take=take,
            newest=lambda keyspace, key: 0,
        ).run()
        last_seq = max(last_seq, found.log.seq_last)
        last_lsn = max(last_lsn, found.log.lsn_last, found.log.durable_lsn)
        _note_moments(workshop, version)
    if not found.is_marked:
        workshop.report.notes.append("the marker that names the manifest was made anew")
    workshop.check_written([*(piece for _, _, piece in tables.rebuilt), *(p for _, p in flushed)])
    return Repaired(
        version=version.apply(tables.edit(workshop.numbers.next_number)),
        database_id=manifest.database_id,
        settings=stored_settings(manifest),
        last_seq=last_seq,
        last_lsn=last_lsn,
        kept=frozenset(tables.kept),
        originals=_originals(names, manifest, tables),
    )


class _Tables:
    """What became of the tables of the version."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._removed: list[tuple[int, int, int]] = []
        self.kept: set[str] = set()
        self.rebuilt: list[tuple[int, int, Piece]] = []
        """(keyspace, level, piece)."""
        self.flushed: list[tuple[int, Piece]] = []
        """(keyspace, piece) of what was replayed."""

    def check(self, owner: KeyspaceVersion, level: int, info: TableInfo) -> None:
        """Keep a table as it is, or write anew what is left of it."""
        error = self._workshop.problem(info)
        if error is None:
            self.kept.add(table_name(info.number))
            self._workshop.report.tables_kept += 1
            return
        self._removed.append((owner.id, level, info.number))
        piece = self._workshop.rebuild(info.number, info, owner.origin, error=error)
        if piece is not None:
            self.rebuilt.append((owner.id, level, piece))

    def edit(self, next_number: int) -> VersionEdit:
        """Return what changes of the version."""
        seqs: dict[int, int] = {}
        for keyspace, piece in self.flushed:
            seqs[keyspace] = max(seqs.get(keyspace, 0), piece.info.seq_max)
        added = [(keyspace, level, piece.info) for keyspace, level, piece in self.rebuilt]
        added += [(keyspace, 0, piece.info) for keyspace, piece in self.flushed]
        return VersionEdit(
            tables_removed=self._removed,
            tables_added=added,
            flushed_seq=seqs,
            next_number=next_number,
        )


def _originals(names: list[str], manifest: Recovered, tables: _Tables) -> list[str]:
    """Return the names of files that belong to the damaged database and are not kept. What no
    manifest names is left to the next open, which removes it.
    """
    needed = {table_name(number) for number in manifest.version.table_numbers()}
    needed.add(manifest_name(manifest.manifest_number))
    limit = manifest.version.next_number + NUMBER_LEAP_MAX
    found = [name for name in names if name.startswith(MARKER_PREFIX)]
    for name in names:
        parsed = parse_numbered(name)
        if parsed is None or name in tables.kept:
            continue
        # A number that no database gives: whose file it is, nobody knows.
        if name in needed or parsed[1] == "wal" or parsed[0] > limit:
            found.append(name)
    return found


def _note_moments(workshop: Workshop, version: Version) -> None:
    """Say that keyspaces may stand at different moments, when operations were lost."""
    flushed = {keyspace.name: keyspace.flushed_seq for keyspace in version.keyspaces.values()}
    is_lossy = any(loss.kind is LossKind.OPERATIONS for loss in workshop.report.losses)
    if is_lossy and len(set(flushed.values())) > 1:
        told = ", ".join(f"{name!r} {seq}" for name, seq in sorted(flushed.items()))
        workshop.report.notes.append(
            "tables hold each keyspace at least up to an operation of its own, whatever was lost "
            f"of the log: {told}"
        )


def _note_kept_segments(workshop: Workshop, first: int) -> None:
    """Say that what is kept for `changes()` is not carried over, when that is what is damaged:
    segments before number `first`, with which the log begins that is needed.
    """
    for error in workshop.report.damage:
        parsed = parse_numbered(error.file.rpartition("/")[2])
        if parsed is None or parsed[1] != "wal" or parsed[0] >= first:
            continue
        workshop.report.lose(
            Loss(
                kind=LossKind.CHANGES,
                file=error.file,
                offset=error.offset,
                reason=f"a segment that was kept for changes(): {error.reason}",
            )
        )
