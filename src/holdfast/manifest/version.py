"""The state of the whole database at one moment: which tables form which levels of which keyspace,
and how far it got.

A `Version` is immutable; `Version.apply` gives the next one and refuses every edit that would break
an invariant, so that a bug is stopped before it is written and a damaged manifest before it is
believed.

Invariants of a version:
1. No file number stands twice, and every one lies below `next_number`.
2. Level 0 is ordered newest first; where two of its tables share keys, every sequence number of the
   newer table is greater.
3. The tables of a deeper level are sorted by `lower` and their ranges are disjoint.
4. No table of a keyspace has a sequence number above the keyspace's `flushed_seq`, and none of
   those lies above `last_seq`.
5. Keyspace ids are never given twice, and lie below `next_keyspace_id`; names are distinct.
6. `next_number`, `next_keyspace_id`, `last_seq`, `wal_first`, `durable_lsn`, every `flushed_seq`
   and `edit_seq` never go back.
7. `wal_first_lsn` is at most one above `durable_lsn`: a segment is synced before the next one
   begins.

The idea of versions and edits is LevelDB's.

Thread safety: everything here is immutable.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from holdfast.base import SEQ_MAX, KeyspaceSettings
from holdfast.base.limits import KEYSPACE_NAME_BYTES_MAX, LEVELS_MAX
from holdfast.manifest.edit import VersionEdit
from holdfast.sstable import TableInfo, TableOrigin

KEYSPACE_ID_MAX = (1 << 32) - 1
NUMBER_MAX = (1 << 64) - 2

Level = tuple[TableInfo, ...]


@dataclass(frozen=True, kw_only=True)
class KeyspaceVersion:
    """The tables of one keyspace."""

    id: int
    name: str
    settings: KeyspaceSettings
    levels: tuple[Level, ...] = ((),) * LEVELS_MAX
    """Always LEVELS_MAX of them; see invariants 2 and 3."""
    flushed_seq: int = 0

    @property
    def origin(self) -> TableOrigin:
        """What new tables of the keyspace say of themselves."""
        return TableOrigin(keyspace=self.id, name=self.name, settings=self.settings)

    @cached_property
    def numbers(self) -> frozenset[int]:
        """The numbers of all tables."""
        return frozenset(table.number for level in self.levels for table in level)

    def tables(self) -> Iterator[tuple[int, TableInfo]]:
        """Yield (level, table) of every table, level by level."""
        for level, tables in enumerate(self.levels):
            for table in tables:
                yield level, table


@dataclass(frozen=True, kw_only=True)
class Version:
    """The state of the whole database at one moment."""

    keyspaces: Mapping[int, KeyspaceVersion] = field(default_factory=lambda: MappingProxyType({}))
    """By id. Read-only."""
    next_number: int = 1
    next_keyspace_id: int = 0
    last_seq: int = 0
    """No table and no flushed operation has a greater sequence number; the log may hold greater
    ones.
    """
    wal_first: int = 0
    wal_first_lsn: int = 0
    wal_first_salt: int = 0
    """0 where it is not known, as in every database that is not encrypted."""
    """0 when it is not known."""
    durable_lsn: int = 0
    edit_seq: int = 0
    """How many edits the database has seen in its life, over all its manifests."""
    clean: bool = False
    settings_text: str = ""
    """The settings of the database, as TOML."""
    has_merges: bool = False
    """Whether there may be MERGE entries in log and tables. Once it is so it stays."""

    def keyspace_named(self, name: str) -> KeyspaceVersion | None:
        """Return the keyspace with this name, or None."""
        return next(
            (keyspace for keyspace in self.keyspaces.values() if keyspace.name == name), None
        )

    def table_numbers(self) -> frozenset[int]:
        """Return the numbers of all live tables."""
        return frozenset[int]().union(*(keyspace.numbers for keyspace in self.keyspaces.values()))

    def apply(self, edit: VersionEdit) -> Version:
        """Return the version after `edit`. Its `edit_seq` is one more, its `clean` is the edit's.

        Raises: ValueError with a sentence when the edit breaks an invariant.
        """
        keyspaces = dict(self.keyspaces)
        for keyspace_id in edit.keyspaces_dropped:
            if keyspaces.pop(keyspace_id, None) is None:
                raise ValueError(f"keyspace {keyspace_id} is dropped but does not exist")
        next_keyspace_id = self._create_keyspaces(keyspaces, edit)
        for keyspace_id, change in sorted(_changes(edit).items()):
            if keyspace_id not in keyspaces:
                raise ValueError(f"keyspace {keyspace_id} is changed but does not exist")
            keyspaces[keyspace_id] = _apply_to_keyspace(keyspaces[keyspace_id], change)
        for keyspace_id, settings in edit.keyspaces_changed.items():
            if keyspace_id not in keyspaces:
                raise ValueError(f"keyspace {keyspace_id} is changed but does not exist")
            keyspaces[keyspace_id].settings.check_kept(settings)
            keyspaces[keyspace_id] = replace(keyspaces[keyspace_id], settings=settings)
        durable_lsn = _raised("durable_lsn", self.durable_lsn, edit.durable_lsn)
        wal_first_lsn = self._wal_first_lsn(edit)
        if wal_first_lsn > durable_lsn + 1:
            raise ValueError(
                f"wal_first_lsn is {wal_first_lsn}, but only {durable_lsn} records are durable"
            )
        next_number = _raised("next_number", self.next_number, edit.next_number)
        _check_numbers(keyspaces, edit, next_number)
        last_seq = _raised("last_seq", self.last_seq, edit.last_seq)
        last_seq = max([last_seq, *(keyspace.flushed_seq for keyspace in keyspaces.values())])
        if last_seq > SEQ_MAX:
            raise ValueError(f"the sequence number {last_seq} exceeds {SEQ_MAX}")
        return Version(
            keyspaces=MappingProxyType(keyspaces),
            next_number=next_number,
            next_keyspace_id=_raised("next_keyspace_id", next_keyspace_id, edit.next_keyspace_id),
            last_seq=last_seq,
            wal_first=_raised("wal_first", self.wal_first, edit.wal_first),
            wal_first_lsn=wal_first_lsn,
            wal_first_salt=self._wal_first_salt(edit),
            durable_lsn=durable_lsn,
            edit_seq=self.edit_seq + 1,
            clean=edit.clean,
            settings_text=(
                self.settings_text if edit.settings_text is None else edit.settings_text
            ),
            has_merges=self.has_merges or edit.has_merges,
        )

    def snapshot_edit(self) -> VersionEdit:
        """Return the edit that makes this version out of `Version(edit_seq=self.edit_seq - 1)`."""
        ordered = [self.keyspaces[keyspace_id] for keyspace_id in sorted(self.keyspaces)]
        return VersionEdit(
            keyspaces_created=tuple(
                (keyspace.id, keyspace.name, keyspace.settings) for keyspace in ordered
            ),
            tables_added=tuple(
                (keyspace.id, level, table)
                for keyspace in ordered
                for level, table in keyspace.tables()
            ),
            flushed_seq={
                keyspace.id: keyspace.flushed_seq for keyspace in ordered if keyspace.flushed_seq
            },
            next_number=self.next_number,
            next_keyspace_id=self.next_keyspace_id,
            last_seq=self.last_seq,
            wal_first=self.wal_first,
            wal_first_lsn=self.wal_first_lsn or None,
            durable_lsn=self.durable_lsn,
            wal_first_salt=self.wal_first_salt or None,
            clean=self.clean,
            settings_text=self.settings_text or None,
            has_merges=self.has_merges,
        )

    def _wal_first_lsn(self, edit: VersionEdit) -> int:
        """Return it after `edit`. A segment that is named without its ordinal has none that is
        known: an earlier version of Holdfast, or another one that skips what it may, wrote that.
        """
        if edit.wal_first_lsn is not None:
            return _raised("wal_first_lsn", self.wal_first_lsn, edit.wal_first_lsn)
        is_kept = edit.wal_first is None or edit.wal_first == self.wal_first
        return self.wal_first_lsn if is_kept else 0

    def _wal_first_salt(self, edit: VersionEdit) -> int:
        if edit.wal_first_salt is not None:
            return edit.wal_first_salt
        is_kept = edit.wal_first is None or edit.wal_first == self.wal_first
        return self.wal_first_salt if is_kept else 0

    def _create_keyspaces(self, keyspaces: dict[int, KeyspaceVersion], edit: VersionEdit) -> int:
        """Add the edit's new keyspaces and return the next keyspace id."""
        next_id = self.next_keyspace_id
        names = {keyspace.name for keyspace in keyspaces.values()}
        for keyspace_id, name, settings in edit.keyspaces_created:
            if keyspace_id < next_id:
                raise ValueError(
                    f"the keyspace id {keyspace_id} was given before; the next is {next_id}"
                )
            if keyspace_id > KEYSPACE_ID_MAX:
                raise ValueError(f"the keyspace id {keyspace_id} exceeds {KEYSPACE_ID_MAX}")
            if not 0 < len(name.encode()) <= KEYSPACE_NAME_BYTES_MAX:
                raise ValueError(
                    f"a keyspace name has 1 to {KEYSPACE_NAME_BYTES_MAX} bytes; {name!r} has not"
                )
            if name in names:
                raise ValueError(f"two keyspaces have the name {name!r}")
            keyspaces[keyspace_id] = KeyspaceVersion(id=keyspace_id, name=name, settings=settings)
            names.add(name)
            next_id = keyspace_id + 1
        return next_id


@dataclass(slots=True)
class _Change:
    """What an edit changes of one keyspace."""

    flushed_seq: int | None = None
    removed: list[tuple[int, int]] = field(default_factory=list)
    """(level, number)."""
    added: list[tuple[int, TableInfo]] = field(default_factory=list)
    """(level, table)."""


def _changes(edit: VersionEdit) -> defaultdict[int, _Change]:
    """Return what an edit changes of the tables and flushed sequence numbers, by keyspace."""
    changes: defaultdict[int, _Change] = defaultdict(_Change)
    for keyspace, seq in edit.flushed_seq.items():
        changes[keyspace].flushed_seq = seq
    for keyspace, level, number in edit.tables_removed:
        changes[keyspace].removed.append((level, number))
    for keyspace, level, table in edit.tables_added:
        changes[keyspace].added.append((level, table))
    return changes


def _raised(name: str, old: int, new: int | None) -> int:
    if new is None:
        return old
    if new < old:
        raise ValueError(f"{name} goes back from {old} to {new}")
    return new


def _check_numbers(
    keyspaces: Mapping[int, KeyspaceVersion], edit: VersionEdit, next_number: int
) -> None:
    """Check that the added tables have numbers that were given, each once in the database."""
    if next_number > NUMBER_MAX:
        raise ValueError(f"the next file number {next_number} exceeds {NUMBER_MAX}")
    owners: dict[int, int] = {}
    for keyspace_id, _, table in edit.tables_added:
        if not 0 < table.number < next_number:
            raise ValueError(
                f"table {table.number} has a number that was never given; the next is {next_number}"
            )
        if table.number in owners:
            raise ValueError(f"table {table.number} is listed twice")
        owners[table.number] = keyspace_id
    added = frozenset(owners)
    for keyspace in keyspaces.values():
        # Costs the smaller of the two sets, so a small edit and a long snapshot both are quick.
        for number in keyspace.numbers & added:
            if owners[number] != keyspace.id:
                raise ValueError(f"table {number} is listed twice")


def _apply_to_keyspace(keyspace: KeyspaceVersion, change: _Change) -> KeyspaceVersion:
    flushed_seq = _raised("flushed_seq", keyspace.flushed_seq, change.flushed_seq)
    levels = list(keyspace.levels)
    removed: dict[int, set[int]] = {}
    for level, number in change.removed:
        _check_level(level)
        if number in removed.setdefault(level, set()):
            raise ValueError(f"table {number} is removed twice")
        removed[level].add(number)
    for level, numbers in removed.items():
        levels[level] = tuple(table for table in levels[level] if table.number not in numbers)
        if len(levels[level]) + len(numbers) != len(keyspace.levels[level]):
            absent = numbers.difference(table.number for table in keyspace.levels[level])
            raise ValueError(
                f"table {min(absent)} is not in level {level} of keyspace {keyspace.id}"
            )
    live = set(keyspace.numbers.difference(*removed.values()))
    added: dict[int, list[TableInfo]] = {}
    for level, table in change.added:
        _check_level(level)
        problem = table.problem()
        if problem is not None:
            raise ValueError(f"table {table.number}: {problem}")
        if table.number in live:
            raise ValueError(f"table {table.number} is listed twice")
        if table.seq_max > flushed_seq:
            raise ValueError(
                f"table {table.number} goes to the sequence number {table.seq_max}, but keyspace "
                f"{keyspace.id} is flushed only through {flushed_seq}"
            )
        live.add(table.number)
        added.setdefault(level, []).append(table)
    for level, tables in added.items():
        levels[level] = (
            _with_newest_first(levels[level], tables)
            if level == 0
            else _with_sorted(level, levels[level], tables)
        )
    after = replace(keyspace, levels=tuple(levels), flushed_seq=flushed_seq)
    # What the cached property would compute from all tables again, for every edit of a long replay.
    vars(after)["numbers"] = frozenset(live)
    return after


def _check_level(level: int) -> None:
    if not 0 <= level < LEVELS_MAX:
        raise ValueError(f"there is no level {level}")


def _with_newest_first(old: Level, added: Iterable[TableInfo]) -> Level:
    """Return level 0 with the added tables (invariant 2)."""
    tables = sorted((*old, *added), key=lambda table: (table.seq_max, table.number), reverse=True)
    for index, newer in enumerate(tables):
        for place in range(index + 1, len(tables)):
            older = tables[place]
            if older.seq_max < newer.seq_min:
                # And so are all that follow.
                break
            if newer.overlaps(older.lower, older.upper):
                raise ValueError(
                    f"tables {newer.number} and {older.number} of level 0 share keys and numbers"
                )
    return tuple(tables)


def _with_sorted(level: int, old: Level, added: Iterable[TableInfo]) -> Level:
    """Return a deeper level with the added tables (invariant 3). Only the neighbours of what is
    added are compared.
    """
    tables = list(old)
    for table in sorted(added, key=lambda table: table.lower):
        at = bisect_left(tables, table.lower, key=lambda other: other.lower)
        for neighbour in tables[max(at - 1, 0) : at + 1]:
            if table.overlaps(neighbour.lower, neighbour.upper):
                raise ValueError(
                    f"tables {neighbour.number} and {table.number} of level {level} overlap"
                )
        tables.insert(at, table)
    return tuple(tables)
