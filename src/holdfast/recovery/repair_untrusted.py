"""A repair without a manifest: which tables there are, whose they are and in which order is found
out from the tables themselves, the log, and what edits can still be read.

- Whose a table is: an edit says it, or the table (`TableOrigin`).
- A table that took the place of others is either complete, and then one of those is gone already,
  or its job was cut off, and then all of those are still there. So where all are there, they count
  and it does not; where one is missing, it counts and the rest of them do not.
- Tables whose ranges overlap are merged, the newest version of each key first, so that each
  keyspace is one sorted run: which of them lay over which is not known any more.
- An operation of the log is taken when no table has its key as new as that.

What stays unknown is said: see `_report_doubts`.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace

from holdfast.base import (
    SEQ_MAX,
    CorruptionError,
    DatabaseSettings,
    FormatError,
    KeyspaceSettings,
    require,
)
from holdfast.compaction import strategy_of
from holdfast.manifest import (
    SalvagedEdits,
    Version,
    VersionEdit,
    parse_numbered,
    salvage_edits,
)
from holdfast.memtable import Memtable
from holdfast.recovery.repair_build import Repaired, flush_replayed
from holdfast.recovery.repair_log import RunReplay, keyspaces_in
from holdfast.recovery.repair_report import Loss, LossKind
from holdfast.recovery.repair_survey import MARKER_PREFIX, Survey, manifest_numbers, own_numbers
from holdfast.recovery.repair_tables import Piece, Readers, Workshop, components
from holdfast.recovery.restart import DEFAULT_KEYSPACE
from holdfast.sstable import TableInfo, TableOrigin, table_name
from holdfast.wal import SalvagedLog


@dataclass(slots=True, kw_only=True)
class _Candidate:
    """A table file and what is known about it."""

    number: int
    info: TableInfo | None
    """None when neither an edit nor the table describes it."""
    origin: TableOrigin | None
    error: CorruptionError | None
    """Why it must be written anew, None when it is whole."""
    needs_number: bool = False
    """It was ingested, and nothing says which sequence number its entries have."""
    stamp: int = 0
    """The one that they get then."""
    is_readable: bool
    """Whether anything of it can be read."""
    keyspace: int = -1
    """Whose it is; -1 when that is not known."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """The keyspaces of the repaired database and their tables."""

    origins: dict[int, TableOrigin] = field(default_factory=dict)
    pieces: dict[int, list[Piece]] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


def repair_untrusted(
    workshop: Workshop, found: Survey, names: list[str], *, keep_behind: bool
) -> Repaired:
    """Build a database out of everything that can be read. Raises: OSError; CorruptionError when
    nothing can, or a file changes meanwhile.
    """
    log = found.log or SalvagedLog()
    edits = salvage_edits(workshop.env, workshop.folder, manifest_numbers(names))
    own = set(own_numbers(names))
    numbers = [
        number
        for name in names
        if (parsed := parse_numbered(name)) is not None
        for number, kind in [parsed]
        if kind == "table" and number in own
    ]
    candidates = _candidates(workshop, edits, sorted(numbers))
    candidates = _current(candidates, edits)
    result = _Found()
    _name_keyspaces(workshop, result, candidates, edits, log)
    _keep_everything(workshop, result.origins)
    _stamp(workshop, result, candidates)
    _gather(workshop, result, candidates)
    is_clean = _is_clean(edits, log, max(manifest_numbers(names), default=0))
    version = _empty_version(result, edits, log)
    settings = _settings(workshop, edits, log)
    if not is_clean:
        _replay(workshop, result, version, log, keep_behind=keep_behind)
    version = _place(workshop, result, version)
    _report_doubts(workshop, is_clean=is_clean, is_gapless=edits.is_gapless)
    last_seq = max(version.last_seq, log.seq_last, edits.highest("last_seq"))
    return Repaired(
        version=version,
        database_id=log.database_id or edits.database_id or workshop.env.random_bytes(16),
        settings=settings,
        last_seq=last_seq,
        last_lsn=max(log.lsn_last, log.durable_lsn, edits.highest("durable_lsn")),
        kept=frozenset(result.kept),
        originals=[
            name
            for name in names
            if name.startswith(MARKER_PREFIX)
            or (parse_numbered(name) is not None and name not in result.kept)
        ],
    )


def _candidates(workshop: Workshop, edits: SalvagedEdits, numbers: list[int]) -> list[_Candidate]:
    known = edits.tables()
    found = []
    for number in numbers:
        described = known.get(number)
        info = None if described is None else described[2]
        candidate = _candidate(workshop, number, info)
        if described is not None:
            candidate.keyspace = described[0]
        elif candidate.origin is not None:
            candidate.keyspace = candidate.origin.keyspace
        found.append(candidate)
    return found


def _candidate(workshop: Workshop, number: int, info: TableInfo | None) -> _Candidate:
    """Look at one table. Raises: FormatError when it is of a newer version."""
    seen = workshop.look(number, info)
    return _Candidate(
        number=number,
        info=seen.info,
        origin=seen.origin,
        error=seen.error,
        needs_number=seen.is_ingested and info is None,
        is_readable=seen.is_readable,
    )


def _current(candidates: list[_Candidate], edits: SalvagedEdits) -> list[_Candidate]:
    """Return the tables that count; see the module. From the newest on, because whoever took the
    place of a table has a greater number.
    """
    present = {candidate.number for candidate in candidates}
    gone = edits.removed()
    dropped = edits.dropped()
    for candidate in sorted(candidates, key=lambda each: each.number, reverse=True):
        replaced = set(candidate.origin.replaces) if candidate.origin is not None else set()
        if not replaced:
            continue
        if candidate.number in gone or not replaced <= present:
            gone |= replaced
        elif candidate.number not in edits.tables():
            gone.add(candidate.number)
        else:
            # An edit named it, so its job was complete.
            gone |= replaced
    return [
        candidate
        for candidate in candidates
        if candidate.number not in gone and candidate.keyspace not in dropped
    ]


def _name_keyspaces(
    workshop: Workshop,
    result: _Found,
    candidates: list[_Candidate],
    edits: SalvagedEdits,
    log: SalvagedLog,
) -> None:
    """Find out which keyspaces there are, and whose each table is."""
    origins = result.origins
    for candidate in candidates:
        if candidate.origin is not None and candidate.keyspace == candidate.origin.keyspace:
            origins[candidate.keyspace] = candidate.origin.replacing(frozenset())
    for keyspace, (name, settings) in edits.keyspaces().items():
        origins[keyspace] = TableOrigin(keyspace=keyspace, name=name, settings=settings)
    dropped = edits.dropped()
    unnamed = keyspaces_in(workshop.env, log, origins) - dropped
    unnamed |= {each.keyspace for each in candidates if each.keyspace >= 0} - origins.keys()
    for keyspace in sorted(unnamed):
        name = DEFAULT_KEYSPACE if keyspace == 0 else f"keyspace-{keyspace}"
        origins[keyspace] = _plain_origin(keyspace, name)
        if keyspace != 0:
            reason = f"keyspace {keyspace} has lost its name; it is {name!r} now"
            workshop.report.lose(
                Loss(
                    kind=LossKind.NAMES,
                    file=workshop.folder,
                    offset=0,
                    keyspace=name,
                    reason=reason,
                )
            )
    if 0 not in origins and 0 not in dropped:
        origins[0] = _plain_origin(0, DEFAULT_KEYSPACE)
    for candidate in candidates:
        if candidate.keyspace < 0 and candidate.is_readable:
            candidate.keyspace = _adopt(workshop, origins, candidate.number, candidate.info)
    _make_distinct(origins)


def _adopt(
    workshop: Workshop, origins: dict[int, TableOrigin], number: int, info: TableInfo | None
) -> int:
    """Return the keyspace of a table of which nothing says whose it is: the only one that there
    is, or a new one.
    """
    keyspace, told = 0, f"it was taken for one of {origins[0].name!r}" if 0 in origins else ""
    if set(origins) != {0}:
        keyspace = max(origins) + 1
        told = f"it is in a keyspace 'table-{number}' of its own now"
        origins[keyspace] = _plain_origin(keyspace, f"table-{number}")
    workshop.report.lose(
        Loss(
            kind=LossKind.NAMES,
            file=f"{workshop.folder}/{table_name(number)}",
            offset=0,
            lower=b"" if info is None else info.lower,
            upper=None if info is None else info.upper,
            count=None if info is None else info.entry_count,
            reason=f"nothing says whose table it is; {told}",
        )
    )
    return keyspace


def _plain_origin(keyspace: int, name: str) -> TableOrigin:
    return TableOrigin(keyspace=keyspace, name=name, settings=KeyspaceSettings())


def _make_distinct(origins: dict[int, TableOrigin]) -> None:
    """Give keyspaces of one name names of their own: one was dropped, the other came after it."""
    taken: set[str] = set()
    for keyspace in sorted(origins, reverse=True):
        origin = origins[keyspace]
        if origin.name in taken:
            origins[keyspace] = replace(origin, name=f"{origin.name}-{keyspace}")
        taken.add(origins[keyspace].name)


def _keep_everything(workshop: Workshop, origins: dict[int, TableOrigin]) -> None:
    """Take retentions away: one may have changed since, and what an older one drops is gone."""
    for keyspace, origin in sorted(origins.items()):
        settings = replace(origin.settings, retention_seconds=0, retention_bytes=0)
        if settings != origin.settings:
            origins[keyspace] = replace(origin, settings=settings)
            workshop.report.notes.append(
                f"the keyspace {origin.name!r} keeps everything now: its retention may have "
                "changed since, and has to be given again"
            )


def _stamp(workshop: Workshop, result: _Found, candidates: list[_Candidate]) -> None:
    """Give ingested tables whose number is lost one that is not less than that of all tables that
    were there before them. Where others have the same keys, that is a guess.
    """
    for candidate in candidates:
        if not candidate.needs_number or candidate.keyspace < 0:
            continue
        seqs = [
            other.stamp if other.info is None else other.info.seq_max
            for other in candidates
            if other.number < candidate.number
        ]
        seq = candidate.stamp = max(seqs, default=0) + 1
        info = candidate.info
        if info is not None:
            candidate.info = replace(info, seq_min=seq, seq_max=seq)
        if any(_may_share_keys(candidate, other) for other in candidates):
            workshop.report.lose(
                Loss(
                    kind=LossKind.ORDER,
                    file=f"{workshop.folder}/{table_name(candidate.number)}",
                    offset=0,
                    keyspace=result.origins[candidate.keyspace].name,
                    lower=None if info is None else info.lower,
                    upper=None if info is None else info.upper,
                    count=None if info is None else info.entry_count,
                    reason="it was ingested, and only the manifest said how new its rows are",
                )
            )


def _may_share_keys(one: _Candidate, other: _Candidate) -> bool:
    """Return whether two tables may have versions of one key, as far as it is known."""
    if one is other or one.keyspace != other.keyspace:
        return False
    if one.info is None or other.info is None:
        return True
    return one.info.overlaps(other.info.lower, other.info.upper)


def _gather(workshop: Workshop, result: _Found, candidates: list[_Candidate]) -> None:
    """Take whole tables as they are, and write the others anew."""
    for candidate in candidates:
        if candidate.keyspace < 0:
            workshop.lose_table(None, None, candidate.error or _unreadable(workshop))
            continue
        origin = result.origins[candidate.keyspace]
        if candidate.error is None and candidate.info is not None:
            workshop.report.tables_kept += 1
            piece: Piece | None = Piece(info=candidate.info, folder=workshop.folder, is_new=False)
        else:
            error = candidate.error or _unreadable(workshop)
            piece = workshop.rebuild(
                candidate.number, candidate.info, origin, error=error, stamp=candidate.stamp
            )
        if piece is not None:
            result.pieces.setdefault(origin.keyspace, []).append(piece)


def _unreadable(workshop: Workshop) -> CorruptionError:
    return CorruptionError(workshop.folder, 0, "a table cannot be read")


def _is_clean(edits: SalvagedEdits, log: SalvagedLog, newest: int) -> bool:
    """Return whether the last edit can be read and says that the database was closed after it: then
    tables hold everything, and none is left that another one replaced. `newest` is the number of
    the newest manifest: one of which nothing can be read was the last to say something.
    """
    if not edits.edits or edits.newest != newest:
        return False
    number, last = edits.edits[-1]
    return last.clean and log.manifest_edit <= number and log.lsn_last <= (last.durable_lsn or 0)


def _empty_version(result: _Found, edits: SalvagedEdits, log: SalvagedLog) -> Version:
    """Return a version with the keyspaces and nothing in them."""
    edit_seq = max([log.manifest_edit, *(number for number, _ in edits.edits)])
    return Version(edit_seq=edit_seq).apply(
        VersionEdit(
            keyspaces_created=tuple(
                (keyspace, origin.name, origin.settings)
                for keyspace, origin in sorted(result.origins.items())
            ),
            next_keyspace_id=max([*result.origins, -1, *edits.dropped()]) + 1,
            # Nothing says that there are none, and who knows none refuses the database then.
            has_merges=True,
        )
    )


def _settings(workshop: Workshop, edits: SalvagedEdits, log: SalvagedLog) -> DatabaseSettings:
    text = edits.settings_text()
    if text is not None:
        try:
            return DatabaseSettings.from_text(text)
        except (ValueError, TypeError) as error:
            raise FormatError(f"the stored settings cannot be used: {error}") from error
    workshop.report.notes.append(
        "the settings of the database are lost; they are the defaults now, until it is opened with "
        "others"
    )
    return DatabaseSettings(wal_alignment_bytes=log.alignment or 8)


def _replay(
    workshop: Workshop, result: _Found, version: Version, log: SalvagedLog, *, keep_behind: bool
) -> None:
    """Take what no table has from the log."""
    with Readers(workshop.env) as readers:
        indexes = {keyspace: _Newest(readers, pieces) for keyspace, pieces in result.pieces.items()}

        def newest(keyspace: int, key: bytes) -> int:
            index = indexes.get(keyspace)
            return 0 if index is None else index.find(key)

        def take(keyspace: int, memtable: Memtable) -> None:
            pieces = flush_replayed(workshop, version.keyspaces[keyspace], memtable)
            result.pieces.setdefault(keyspace, []).extend(pieces)

        RunReplay(
            env=workshop.env,
            log=log,
            report=workshop.report,
            keep_behind=keep_behind,
            version=version,
            is_trusted=False,
            take=take,
            newest=newest,
        ).run()


class _Newest:
    """Finds the newest version of a key in tables whose ranges may overlap."""

    def __init__(self, readers: Readers, pieces: list[Piece]) -> None:
        self._readers = readers
        self._pieces = sorted(pieces, key=lambda piece: piece.info.lower)
        self._uppers: list[bytes] = []
        upper = b""
        for piece in self._pieces:
            upper = max(upper, piece.info.upper)
            self._uppers.append(upper)

    def find(self, key: bytes) -> int:
        """Return its number, 0 when no table has the key."""
        found = 0
        at = bisect_right(self._pieces, key, key=lambda piece: piece.info.lower) - 1
        while at >= 0 and key < self._uppers[at]:
            piece = self._pieces[at]
            if key < piece.info.upper and piece.info.seq_max > found:
                version = self._readers.open(piece.folder, piece.info).get(key, SEQ_MAX)
                found = max(found, 0 if version is None else version[0])
            at -= 1
        return found


def _place(workshop: Workshop, result: _Found, version: Version) -> Version:
    """Merge what overlaps, and put all tables of each keyspace where its strategy wants them."""
    for keyspace, pieces in sorted(result.pieces.items()):
        origin = result.origins[keyspace]
        run: list[Piece] = []
        for group in components(pieces):
            run += group if len(group) == 1 else workshop.merge(group, origin)
        workshop.check_written(piece for piece in run if piece.is_new)
        kept = [table_name(piece.info.number) for piece in run if not piece.is_new]
        workshop.make_durable(kept)
        result.kept.update(kept)
        require(run, "what tables were made or merged of has entries")
        infos = [piece.info for piece in run]
        levels = strategy_of(origin.settings).place(version.keyspaces[keyspace], infos, frozenset())
        version = version.apply(
            VersionEdit(
                tables_added=tuple(
                    (keyspace, level, info) for level, info in zip(levels, infos, strict=True)
                ),
                flushed_seq={keyspace: max(info.seq_max for info in infos)},
                next_number=workshop.numbers.next_number,
            )
        )
    return version


def _report_doubts(workshop: Workshop, *, is_clean: bool, is_gapless: bool) -> None:
    """Say what nothing can prove any more."""
    if is_clean:
        workshop.report.notes.append(
            "the manifest was damaged; which tables there are was found out from what is left of "
            "it and from the tables"
        )
        if is_gapless:
            return
        kind = LossKind.NAMES
        reason = (
            "edits of the manifest cannot be read. A keyspace that they made may be missing if it "
            "was empty, and one that they dropped may be back"
        )
    else:
        kind = LossKind.ORDER
        reason = (
            "the manifest was rebuilt from the tables and the log. A table that had been "
            "replaced, and was not removed yet, may have been taken for a current one; then "
            "deleted keys or older values may have come back"
        )
    place = next(
        iter(workshop.report.damage),
        CorruptionError(workshop.folder, 0, "the manifest is missing"),
    )
    workshop.report.lose(Loss(kind=kind, file=place.file, offset=place.offset, reason=reason))
