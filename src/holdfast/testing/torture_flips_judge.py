"""Judging a damaged file by the code that reads it, without opening the database.

A table is opened, walked both ways and asked for every key. A log is read by recovery's reader,
with its decision about the end; a manifest by the loader, and the log again by what it then says.
What a log or a manifest leads to, when it is neither refused nor what it was, is looked at by
opening the whole database, once for each such outcome.

The verdicts are those of `torture_damage`.

Thread safety: a judge belongs to one thread.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import NoReturn, cast

from holdfast.base import (
    SEQ_MAX,
    CorruptionError,
    FormatError,
    WrongKeyError,
    pack_trailer,
    unpack_trailer,
)
from holdfast.bufferpool import BufferPool
from holdfast.env import Env
from holdfast.manifest import Recovered, VersionSet
from holdfast.recovery import stored_settings
from holdfast.sstable import PageType, TableReader
from holdfast.testing import encrypted
from holdfast.testing.fuzz_table import MemoryFile
from holdfast.testing.oracle import FOLDER, State
from holdfast.testing.torture_damage import (
    Damage,
    Files,
    WrongAnswerError,
    state_of,
    without_ends,
)
from holdfast.testing.torture_flips_base import SEGMENT_HEADER_BYTES, Entry, KnownTable, World
from holdfast.wal import read_log

_POOL_BYTES = 1 << 20
_READ_LATER = frozenset((PageType.DATA, PageType.INDEX, PageType.FILTER))
"""Types of pages that an open does not read, so that their damage leaves the rest readable."""

Outcome = tuple[Recovered, tuple[tuple[int, int, int, int, bytes], ...], int, int]
"""What manifest and log say: the version, the records, the last ordinal and the last number."""


class Shelf:
    """The part of an env that readers of a database use, over files in memory."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def list_dir(self, folder: str) -> list[str]:
        return sorted(self._files)

    def open(self, path: str) -> MemoryFile:
        data = self._files.get(path.rpartition("/")[2])
        if data is None:
            raise FileNotFoundError(path)
        return MemoryFile(data, path)

    def mutex(self) -> contextlib.AbstractContextManager[None]:
        # One thread reads.
        return contextlib.nullcontext()

    def __getattr__(self, name: str) -> object:
        # What a sealed env takes from the env below, and no reader asks for.
        if name.startswith("_"):
            raise AttributeError(name)
        return _refused


def _refused(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a reader does more than read")


class Judge:
    """Judges damages of one database. `asked` and `answered` count point reads of tables that are
    damaged in pages which an open does not read.
    """

    def __init__(self, world: World) -> None:
        self.asked = 0
        self.answered = 0
        self.opened = 0
        """How often the whole database had to be opened."""
        self._world = world
        self._pool = BufferPool(_POOL_BYTES)
        self._manifest = VersionSet.recover(_shelf(world.files), FOLDER)
        self._truth = self._outcome(world.files, self._manifest)
        self._shown: dict[object, State | None] = {}

    def judge(self, damage: Damage) -> str:
        """Return the verdict over a damage. Raises: WrongAnswerError, and what readers should not
        raise.
        """
        if all(name in self._world.tables for name in damage.changed):
            verdicts = [self._judge_table(name, damage.files[name]) for name in damage.changed]
            return next((v for v in ("refused", "found") if v in verdicts), "right")
        return self._judge_rest(damage)

    # --- tables

    def _judge_table(self, name: str, after: bytes) -> str:
        known = self._world.tables[name]
        info = known.info
        hit = _pages_hit(known, self._world.files[name], after)
        try:
            # The other files are sound, so what opens this one is there.
            file = _shelf(self._world.files | {name: after}).open(f"{FOLDER}/{name}")
            reader = TableReader(file, info.number, info.file_id, self._pool, info)
        except (CorruptionError, FormatError) as error:
            if all(page_type in _READ_LATER for _, page_type in hit):
                raise WrongAnswerError("an open is refused for a page that it need not") from error
            return "refused"
        try:
            return self._read(reader, known, frozenset(offset for offset, _ in hit))
        finally:
            reader.close()

    def _read(self, reader: TableReader, known: KnownTable, hit: frozenset[int]) -> str:
        """Read a table that was opened in every way."""
        spans = [
            (start, stop, unpack_trailer(trailer)[0]) for start, trailer, stop in known.tombstones
        ]
        if sorted(reader.range_tombstones.tombstones()) != sorted(spans):
            raise WrongAnswerError("the range tombstones are not those of the table")
        failed = self._walk(reader, known.entries, is_forward=True)
        failed += self._walk(reader, known.entries[::-1], is_forward=False)
        for key, (entry, way) in known.lookups.items():
            try:
                found = reader.get(key, SEQ_MAX)
            except CorruptionError as error:
                failed += 1
                if not way & hit:
                    raise WrongAnswerError(f"{key!r} is refused, which is elsewhere") from error
                continue
            self.answered += 1
            if found != (*unpack_trailer(entry[1]), entry[2]):
                raise WrongAnswerError(f"{key!r} has a wrong value")
        self.asked += len(known.lookups)
        return "found" if failed else "right"

    def _walk(self, reader: TableReader, expected: list[Entry], *, is_forward: bool) -> int:
        """Walk; return 1 when that ended with an error, 0 when it came to the end."""
        cursor = reader.cursor()
        seen = 0
        try:
            more = cursor.seek_first() if is_forward else cursor.seek_last()
            while more:
                trailer = pack_trailer(cursor.seq, cursor.kind)
                if seen == len(expected) or (cursor.key, trailer, cursor.value) != expected[seen]:
                    raise WrongAnswerError("a walk gives an entry that is not there")
                seen += 1
                more = cursor.next() if is_forward else cursor.prev()
        except CorruptionError:
            return 1
        if seen < len(expected):
            raise WrongAnswerError("a walk ends early and says nothing")
        return 0

    # --- logs and manifests

    def _judge_rest(self, damage: Damage) -> str:
        is_log_only = all(name.endswith(".wal") for name in damage.changed)
        try:
            manifest = self._manifest
            if not is_log_only:
                manifest = VersionSet.recover(_shelf(damage.files), FOLDER)
            if manifest.is_new:
                raise WrongAnswerError("the database is taken for one that was never there")
            outcome = self._outcome(damage.files, manifest)
        except (CorruptionError, FormatError, WrongKeyError):
            return "refused"
        if _told(outcome) == _told(self._truth):
            return "right"
        state = self._state(damage.files, outcome)
        if state is None:
            return "refused"
        if state == self._world.states[-1]:
            return "right"
        reference = self._without_ends(damage)
        if reference is None or state not in self._world.states:
            raise WrongAnswerError("something that was durable is gone")
        manifest = VersionSet.recover(_shelf(reference), FOLDER)
        if self._state(reference, self._outcome(reference, manifest)) != state:
            raise WrongAnswerError("more is gone than a crash may take")
        return "cut"

    def _without_ends(self, damage: Damage) -> Files | None:
        """Return the files as a crash may have left them for which the damage can be taken."""
        whole, is_closed = self._world.files, self._world.is_closed
        left = without_ends(whole, damage, is_closed=is_closed)
        newest = max(name for name in whole if name.endswith(".wal"))
        if left is not None or not encrypted.is_used() or newest not in damage.changed:
            return left
        if _header(damage.files, newest) == _header(whole, newest):
            return None
        # In a sealed segment whose header does not open no records are looked for: without the END
        # record that names it, too, it looks like one that was prepared and never used.
        others = [name for name in damage.changed if name != newest]
        if not others:
            return None
        unused = {**whole, newest: bytes(len(whole[newest]))}
        return without_ends(unused, replace(damage, changed=others), is_closed=is_closed)

    def _outcome(self, files: Files, manifest: Recovered) -> Outcome:
        version = manifest.version
        contents = read_log(
            _shelf(files),
            FOLDER,
            version.wal_first,
            database_id=manifest.database_id,
            alignment=stored_settings(manifest).wal_alignment_bytes,
            first_lsn=version.wal_first_lsn,
            durable_lsn=version.durable_lsn,
            manifest_edit_seen=version.edit_seq,
            clean=version.clean,
        )
        records = tuple(
            (record.segment, record.lsn, record.seq_first, record.op_count, bytes(record.payload))
            for record in contents.records()
        )
        return manifest, records, contents.last_lsn, contents.last_seq

    def _state(self, files: Files, outcome: Outcome) -> State | None:
        """Return what a database shows that has this outcome."""
        told = repr(_told(outcome))
        if told not in self._shown:
            self.opened += 1
            self._shown[told] = state_of(files)
        return self._shown[told]


def _told(outcome: Outcome) -> tuple[object, ...]:
    """Return what of an outcome decides what the database shows."""
    manifest, *rest = outcome
    return manifest.version, manifest.database_id, *rest


def _shelf(files: Files) -> Env:
    """Return an env that shows the files in their plain formats.

    Raises: WrongKeyError, CorruptionError, FormatError for a key file that is not what it was.
    """
    return encrypted.plain_face(cast("Env", Shelf(files)), FOLDER)


def _header(files: Files, name: str) -> bytes:
    """Return the plain bytes of a segment's header, as far as it opens."""
    return _shelf(files).open(f"{FOLDER}/{name}").read_at(0, SEGMENT_HEADER_BYTES)


def _pages_hit(known: KnownTable, before: bytes, after: bytes) -> list[tuple[int, int]]:
    """Return offset and type of the pages that differ; the whole file where its size does."""
    found = [
        (start, page_type)
        for start, size, page_type in known.pages
        if before[start : start + size] != after[start : start + size]
    ]
    end = max(start + size for start, size, _ in known.pages)
    if before[end:] != after[end:]:
        found.append((end, PageType.PROPERTIES))
    return found
