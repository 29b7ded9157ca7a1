"""Torture by damage: files that are not what was written.

A small database that a workload made, closed or left by a killed process, is damaged in one place;
then it is opened, read in every way and verified. Every answer must be right, or an error.

One thing cannot be told from a crash: the end of the log or of the manifest of a database that was
not closed may be gone because it was never synced. Such a damage may be taken for a crash (`cut`),
but only when nothing that is whole follows it and says that it was durable, and only with the very
state that the same file has without its end.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random

import holdfast
from holdfast.base import CorruptionError, DatabasePoisonedError, FormatError, WrongKeyError
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, Env, PosixEnv, SimEnv
from holdfast.sstable import FOOTER_BYTES, TABLE_MAGIC, PageType, table_name
from holdfast.testing import encrypted
from holdfast.testing.crash import Recording, record
from holdfast.testing.fuzz_table_model import Table
from holdfast.testing.oracle import FOLDER, History, State, abandon, content, rows
from holdfast.testing.torture_part import Failure, Figures, Part, bounded
from holdfast.testing.workload import CANONICAL, SECTORS, workload
from holdfast.wal import FRONT_BYTES_MAX, RECORD_HEADER_BYTES, segment_header_as_stored
from holdfast.wal.format import decode_record_header

Files = dict[str, bytes]

ITEMS_PER_DATABASE = 100
REAL_EVERY = 10
"""One damage in so many is done to files in the folder of the run, on the real disk."""

MAGICS = {".wal": b"HWAL", ".manifest": b"HFER"}
"""What each record of a log segment and each edit of a manifest begins with."""

SEALED_MAGICS = {".wal": b"HWSL", ".manifest": b"HWSM"}
"""The same in sealed files: there, too, the size stands behind it."""

_NAMES = (*CANONICAL, *SECTORS)
_RECORDS_ALIGNED = 8
_SIZES = (512, 4096)
_FLIP_SHARE = 0.4
_LINK_BYTES = 48
_SEAL_BYTES = 24
_SEGMENT_HEADER = 80
_MANIFEST_HEADER = 64
_KEYS_READ = 60

VERDICTS = ("refused", "found", "right", "cut", "WRONG")
"""Open refused, a read or verify found it, all answers are right, taken for a crash, a lie."""

LETTERS = ("r", "f", "=", "c", "WRONG ")
"""The verdicts in a matrix: refused, found, right, cut, wrong."""


@dataclass(frozen=True, slots=True)
class Base:
    """A database to damage."""

    title: str
    files: Files
    earlier: list[Files]
    """The files at moments before."""
    history: History
    number: int
    """The commit whose state it holds."""
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to the files."""

    kind: str
    files: Files
    changed: list[str]


# --- making databases


def files_of(machine: SimEnv) -> Files:
    """Return what the folder of a machine holds; nothing where there is no folder."""
    found: Files = {}
    with suppress(FileNotFoundError):
        for name in machine.list_dir(FOLDER):
            file = machine.open(f"{FOLDER}/{name}")
            found[name] = file.read_at(0, file.size())
            file.close()
    return found


def files_at(point: CrashPoint) -> Files:
    """Return the files that a process leaves that is killed at a moment."""
    machine = point.state("all").build()
    return files_of(machine)


def machine_with(files: Files) -> SimEnv:
    """Return a machine whose folder holds these files."""
    machine = SimEnv(1)
    machine.make_dir(FOLDER, site="torture")
    put_files(machine, FOLDER, files)
    return machine


def put_files(env: Env, folder: str, files: Files) -> None:
    """Write files into a folder."""
    for name, data in files.items():
        file = env.create(f"{folder}/{name}", site="torture")
        file.write_at(0, data, site="torture")
        file.close()


def make_base(index: int, seed: int) -> Base:
    """Return database `index`: closed ones and killed ones take turns. Raises: AssertionError."""
    name = _NAMES[index // 2 % len(_NAMES)]
    rng = Random(f"{seed}/damage/base/{index}")
    recording = record(workload(name, seed + index // (2 * len(_NAMES))))
    moments = [moment for moment in recording.moments if moment.lower >= 0]
    is_closed = index % 2 == 0
    moment = moments[-1] if is_closed else rng.choice(moments[:-1])
    before = [past for past in recording.moments if past.index < moment.index]
    earlier = [files_at(past.point) for past in rng.sample(before, min(3, len(before)))]
    files = files_at(moment.point)
    numbers = numbers_found(files, recording)
    allowed = [number for number in numbers if moment.lower <= number <= moment.upper]
    if not allowed:
        raise AssertionError(f"{name}: undamaged it has state {numbers}")
    title = f"{name}, {'closed' if is_closed else f'killed after {moment.index} operations'}"
    return Base(title, files, earlier, recording.history, allowed[-1], is_closed)


def numbers_found(files: Files, recording: Recording) -> tuple[int, ...]:
    """Return the numbers of the state that a folder holds; several states may be equal."""
    found = state_of(files)
    return () if found is None else tuple(recording.history.numbers(found))


def state_of(files: Files) -> State | None:
    """Return what a folder holds, or None when it is refused."""
    machine = machine_with(files)
    try:
        with open_database(
            FOLDER, create=False, read_only=True, env=machine, key=encrypted.key()
        ) as database:
            return content(database)
    except (CorruptionError, FormatError, WrongKeyError, FileNotFoundError):
        return None
    finally:
        machine.cut_power()


# --- damaging


def _flip(rng: Random, base: Base, name: str) -> Files:
    data = bytearray(base.files[name])
    for _ in range(rng.choice((1, 1, 1, 2))):
        data[_place(rng, data)] ^= 1 << rng.randrange(8)
    return {name: bytes(data)}


def _place(rng: Random, data: bytes | bytearray) -> int:
    """Return an offset; mostly one that was written to."""
    written = len(data.rstrip(b"\0"))
    return rng.randrange(written if written and rng.random() < 0.9 else len(data))


def _zero(size: int) -> Callable[[Random, Base, str], Files]:
    def damage(rng: Random, base: Base, name: str) -> Files:
        start, end = _sector(rng, base.files[name], size)
        return {name: _with(base.files[name], start, bytes(end - start))}

    return damage


def _garbage(size: int) -> Callable[[Random, Base, str], Files]:
    def damage(rng: Random, base: Base, name: str) -> Files:
        start, end = _sector(rng, base.files[name], size)
        return {name: _with(base.files[name], start, rng.randbytes(end - start))}

    return damage


def _sector(rng: Random, data: bytes, size: int) -> tuple[int, int]:
    start = _place(rng, data) // size * size
    return start, min(start + size, len(data))


def _with(data: bytes, start: int, piece: bytes) -> bytes:
    return data[:start] + piece + data[start + len(piece) :]


def _truncate(rng: Random, base: Base, name: str) -> Files:
    data = base.files[name]
    return {name: data[: rng.choice((_place(rng, data), rng.randrange(len(data)), 0))]}


def _extend(rng: Random, base: Base, name: str) -> Files:
    data = base.files[name]
    size = rng.choice((1, 8, 512, 4096))
    return {name: data + rng.choice((bytes(size), rng.randbytes(size), data[-size:], data))}


def _swap_sectors(rng: Random, base: Base, name: str) -> Files:
    size = rng.choice(_SIZES)
    data = base.files[name]
    first, second = (_sector(rng, data, size) for _ in range(2))
    one, two = data[slice(*first)], data[slice(*second)]
    if len(one) != len(two):
        return {}
    return {name: _with(_with(data, first[0], two), second[0], one)}


def _swap_pages(rng: Random, base: Base, name: str) -> Files:
    """Two pages of tables change places, as far as their sizes let them."""
    tables = [
        other for other, data in base.files.items() if other.endswith(".table") and pages_of(data)
    ]
    if not tables:
        return {}
    one, two = rng.choice(tables), rng.choice(tables)
    files = {one: base.files[one], two: base.files[two]}
    first, second = (rng.choice(pages_of(files[each])) for each in (one, two))
    size = min(first[1], second[1])
    left = files[one][first[0] : first[0] + size]
    right = files[two][second[0] : second[0] + size]
    files[one] = _with(files[one], first[0], right)
    files[two] = _with(files[two], second[0], left)
    return files


def _duplicate(rng: Random, base: Base, name: str) -> Files:
    """A sector of some file was written here as well: a misdirected write."""
    size = rng.choice(_SIZES)
    source = base.files[rng.choice(sorted(base.files))]
    if not source:
        return {}
    start, end = _sector(rng, source, size)
    at, _ = _sector(rng, base.files[name], size)
    piece = source[start:end][: len(base.files[name]) - at]
    return {name: _with(base.files[name], at, piece)}


def _stale_sector(rng: Random, base: Base, name: str) -> Files:
    """A sector is as it was before: a lost write."""
    old = rng.choice(base.earlier).get(name) if base.earlier else None
    if not old:
        return {}
    start, end = _sector(rng, base.files[name], rng.choice(_SIZES))
    return {name: _with(base.files[name], start, old[start:end])}


def _stale_file(rng: Random, base: Base, name: str) -> Files:
    old = rng.choice(base.earlier).get(name) if base.earlier else None
    return {} if old is None else {name: old}


def _swap_files(rng: Random, base: Base, name: str) -> Files:
    other = rng.choice(sorted(base.files))
    return {name: base.files[other], other: base.files[name]}


def _copy_file(rng: Random, base: Base, name: str) -> Files:
    return {name: base.files[rng.choice(sorted(base.files))]}


STALE = "file of before"
FAULTS: dict[str, Callable[[Random, Base, str], Files]] = {
    "bit flip": _flip,
    "zeroed 512": _zero(512),
    "zeroed 4096": _zero(4096),
    "garbage 512": _garbage(512),
    "garbage 4096": _garbage(4096),
    "cut short": _truncate,
    "extended": _extend,
    "sectors swapped": _swap_sectors,
    "pages swapped": _swap_pages,
    "misdirected write": _duplicate,
    "lost write": _stale_sector,
    STALE: _stale_file,
    "files swapped": _swap_files,
    "file copied over": _copy_file,
}
DELETED = "file deleted"


def damaged(rng: Random, base: Base) -> Damage:
    """Return a damage that changes something."""
    names = [name for name, data in sorted(base.files.items()) if data]
    while True:
        if rng.random() < 1 / 30:
            name = rng.choice([name for name in sorted(base.files) if name != "LOCK"])
            left = {other: data for other, data in base.files.items() if other != name}
            return Damage(DELETED, left, [name])
        kind = "bit flip" if rng.random() < _FLIP_SHARE else rng.choice(sorted(FAULTS))
        after = FAULTS[kind](rng, base, rng.choice(names))
        changed = [name for name, data in after.items() if data != base.files[name]]
        if changed:
            return Damage(kind, base.files | after, changed)


# --- saying where


def pages_of(data: bytes) -> list[tuple[int, int, str]]:
    """Return offset, size and kind of each page of a table; nothing for one that a killed process
    left unfinished, nor for a sealed one.
    """
    if encrypted.is_used() or data[-FOOTER_BYTES:][: len(TABLE_MAGIC)] != TABLE_MAGIC:
        return []
    table = Table.parse(data)
    if table.encode() != data:
        raise AssertionError("a table is not what its pages make")
    return [(*node.place[:2], PageType(node.page_type).name.lower()) for node in table.nodes]


def first_difference(one: bytes, two: bytes) -> int:
    """Return the first offset at which two contents differ."""
    size = min(len(one), len(two))
    return next((at for at in range(size) if one[at] != two[at]), size)


def region(name: str, data: bytes, offset: int) -> str:
    """Return what stands at an offset of a file."""
    if name.endswith(".table"):
        for start, size, kind in pages_of(data):
            if start <= offset < start + size:
                return f"table, {kind}"
        if encrypted.is_used():
            return "table, sealed"
        return "table, footer" if pages_of(data) else "table, unfinished"
    if name.endswith(".wal"):
        front = front_of(data)
        if front.records <= offset < len(data.rstrip(b"\0")):
            return "log, records"
        if offset < _SEGMENT_HEADER:
            return "log, header"
        is_link = front.link <= offset < front.link_end
        return "log, link" if is_link else "log, unused"
    if name.endswith(".manifest"):
        return "manifest, header" if offset < _MANIFEST_HEADER else "manifest, edits"
    return "marker or lock"


def region_of(base: Base, damage: Damage) -> str:
    """Return what a damage hit."""
    if damage.kind in {DELETED, STALE, "files swapped", "file copied over"}:
        suffix = damage.changed[0].rpartition(".")[2]
        kinds = {"table": "table, whole", "wal": "log, whole", "manifest": "manifest, whole"}
        return kinds.get(suffix, "marker or lock")
    name = damage.changed[0]
    before = base.files[name]
    return region(name, before, first_difference(before, damage.files[name]))


# --- judging


class WrongAnswerError(AssertionError):
    """A damaged database gave an answer that it should not have given."""


@dataclass(slots=True)
class Reading:
    """What reads of a damaged database gave."""

    fitting: list[State]
    """The states that every answer agrees with."""
    errors: list[Exception] = field(default_factory=list)

    def read(self, call: Callable[[], object], expected: Callable[[State], object]) -> None:
        """Read; an answer must be that of a state, an error one of damage."""
        try:
            found = call()
        except (CorruptionError, DatabasePoisonedError) as error:
            self.errors.append(error)
            return
        self.fitting = [state for state in self.fitting if found == expected(state)]
        if not self.fitting:
            raise WrongAnswerError("an answer is that of no state that may be there")


def read_everything(database: Database, acceptable: list[State], rng: Random) -> Reading:
    """Read in every way. Raises: WrongAnswerError."""
    reading = Reading(acceptable)
    reading.read(lambda: sorted(database.keyspaces()), sorted)
    for name in sorted({name for state in acceptable for name in state}):
        if name not in database.keyspaces():
            continue
        space = database.keyspace(name, create=False)
        keys = sorted({key for state in acceptable for key in state.get(name, ())})
        asked = rng.sample(keys, min(len(keys), _KEYS_READ))
        reading.read(lambda: dict(rows(space.items())), lambda state: state.get(name))  # noqa: B023
        reading.read(
            lambda: rows(space.items(reverse=True)),  # noqa: B023
            lambda state: sorted(state.get(name, {}).items(), reverse=True),  # noqa: B023
        )
        for key in [*asked, *(key + b"!" for key in asked[::7]), b"\xff"]:
            reading.read(
                lambda: space.get(key),  # noqa: B023
                lambda state: state.get(name, {}).get(key),  # noqa: B023
            )
    return reading


def judge(
    env: Env, folder: str, acceptable: list[State], rng: Random, *, read_only: bool
) -> tuple[str, State | None]:
    """Open, read, verify and close. Returns the verdict and the state that was shown.

    Raises: WrongAnswerError.
    """
    try:
        database = open_database(
            folder, create=False, read_only=read_only, env=env, key=encrypted.key()
        )
    except (CorruptionError, FormatError, WrongKeyError):
        return "refused", None
    try:
        reading = read_everything(database, acceptable, rng)
        try:
            is_sound = database.verify().ok
        except DatabasePoisonedError:
            # A compaction met the damage.
            is_sound = False
    except BaseException:
        if isinstance(env, SimEnv):
            abandon(env, database)
        else:
            with suppress(holdfast.Error):
                database.close()
        raise
    if is_sound:
        # A compaction reads no filters, and drops a table that is deleted as a whole unread: what a
        # read found damaged may be gone before verify comes. Its file may stay as long as somebody
        # holds the view it was read through.
        version = database._engine.version  # noqa: SLF001  no user needs to know the tables
        named = {
            table_name(number)
            for keyspace in version.keyspaces.values()
            for number in keyspace.numbers
        }
        for error in reading.errors:
            name = os.path.basename(error.file) if isinstance(error, CorruptionError) else ""
            if name in named or not name.endswith(".table"):
                raise WrongAnswerError(f"verify does not find what a read found: {error}")
    with suppress(DatabasePoisonedError):
        database.close()
    return ("right" if is_sound else "found"), reading.fitting[0]


def places_of(name: str, data: bytes) -> list[int]:
    """Return where the records of a log segment or the edits of a manifest start."""
    magics = SEALED_MAGICS if encrypted.is_used() else MAGICS
    magic = magics.get(os.path.splitext(name)[1])
    if magic is None:
        return []
    return [at for at in range(0, len(data), _RECORDS_ALIGNED) if data[at : at + 4] == magic]


def _is_behind_end(data: bytes, places: list[int], offset: int) -> bool:
    """Return whether an offset of a segment lies behind its last record, where nothing is read."""
    if not places:
        return False
    payload = int.from_bytes(data[places[-1] + 4 : places[-1] + 8], "little")
    return offset >= places[-1] + RECORD_HEADER_BYTES + payload


def _durable_from(data: bytes, places: list[int], offset: int) -> int:
    """Return where the first record of a segment, in its plain format, starts that says that the
    one at an offset is durable, less one.

    Whole records before that one were not synced either, so a crash may leave them behind a hole.
    """
    header = segment_header_as_stored(data)
    if header is None:
        return 0
    hit: int | None = None
    for start in places:
        stored = memoryview(data)[start : start + RECORD_HEADER_BYTES]
        decoded = decode_record_header(stored, header.salt)
        if decoded is None:
            continue
        record = decoded[0]
        if hit is not None and record.durable_lsn >= hit and start > offset:
            return start - 1
        if start <= offset:
            hit = record.lsn
    return len(data) if hit is not None else 0


def is_unwritten(front: Front, before: bytes, after: bytes) -> bool:
    """Return whether a segment is as it was made: its link is written with its first record, so a
    crash may take both.
    """
    link = front.link
    return before[:link] == after[:link] and not any(after[link:])


@dataclass(frozen=True, slots=True)
class Front:
    """Where the parts of a segment's header block stand."""

    link: int
    link_end: int
    """Anything but zeros and a link between these two is a link that is not there."""
    records: int
    """Where the first record starts."""
    alignment: int


def front_of(data: bytes) -> Front:
    """Return it of a sound segment; of one that has no header yet, what most have."""
    header = segment_header_as_stored(data)
    if header is None:
        return Front(2048, 2048 + _LINK_BYTES, 4096, _RECORDS_ALIGNED)
    return Front(header.link_offset, header.link_end, header.records_offset, header.alignment)


def plain_segment(files: Files, name: str, size: int) -> bytes:
    """Return the first bytes of a segment in its plain format, in which all stands where it does in
    the sealed one.
    """
    if not encrypted.is_used():
        return files[name][:size]
    file = encrypted.plain_face(machine_with(files), FOLDER).open(f"{FOLDER}/{name}")
    return file.read_at(0, size)


def head_of(files: Files, name: str) -> Front:
    """Return where the parts of a header block stand, of a sealed segment, too."""
    if not encrypted.is_used() or not name.endswith(".wal"):
        return front_of(files[name])
    front = front_of(plain_segment(files, name, FRONT_BYTES_MAX))
    return replace(front, link_end=max(front.link_end, front.link + _LINK_BYTES + _SEAL_BYTES))


def without_ends(whole: Files, damage: Damage, *, is_closed: bool) -> Files | None:
    """Return the files without what a damage hit and what follows it, as a crash may leave them.

    None when the damage cannot be taken for a crash: something whole follows it, it hit something
    that crashes leave alone, or the database was closed.
    """
    if is_closed:
        return None
    left = dict(whole)
    for name in damage.changed:
        before, after = whole.get(name, b""), damage.files.get(name)
        places = places_of(name, before)
        kin = (other for other in whole if other[-4:] == name[-4:])
        newest = max((other for other in kin if places_of(other, whole[other])), default="")
        if after is None:
            return None
        hit = first_difference(before, after)
        if (
            name == newest
            and damage.kind == STALE
            and is_unwritten(head_of(whole, name), before, after)
        ):
            left[name] = after
            continue
        if name.endswith(".wal") and name != newest and _is_behind_end(before, places, hit):
            continue
        if name != newest:
            return None
        # A link is synced with the first record, or later: a crash may damage it beside any record
        # that was not synced yet.
        front = head_of(whole, name)
        if name.endswith(".wal") and front.link <= hit < front.link_end and places:
            first = places[0]
            hit = first + first_difference(before[first:], after[first:])
        ends = [*places[1:], len(before)]
        known = 0
        if name.endswith(".wal"):
            known = _durable_from(plain_segment(whole, name, len(before)), places, hit)
        for start, end in zip(places, ends, strict=True):
            if start > max(hit, known) and before[start:end] == after[start:end]:
                return None
        from_here = next((s for s, e in zip(places, ends, strict=True) if e > hit), None)
        if from_here is None or hit < places[0]:
            return None
        size = len(before) - from_here
        left[name] = before[:from_here] + (bytes(size) if name.endswith(".wal") else b"")
    return left


class DamagePart(Part):
    """Item K is one damage; so many of them share a database."""

    name = "damage"

    def __init__(self, seed: int, folder: str) -> None:
        self.failures: list[Failure] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By what was hit, the kind of damage and the verdict."""
        self._seed = seed
        self._folder = os.path.join(folder, "damage")
        self._done = 0
        self._real = 0
        self._base: tuple[int, Base] | None = None
        self._bases = 0

    def step(self) -> None:
        item, self._done = self._done, self._done + 1
        self._do(item)

    def replay(self, item: str) -> None:
        self._do(int(item))

    def _do(self, item: int) -> None:
        index = item // ITEMS_PER_DATABASE
        if self._base is None or self._base[0] != index:
            self._base = index, make_base(index, self._seed)
            self._bases += 1
        base = self._base[1]
        rng = Random(f"{self._seed}/damage/{item}")
        damage = damaged(rng, base)
        where = region_of(base, damage)
        try:
            with bounded():
                verdict = self._judge(base, damage, rng, is_real=item % REAL_EVERY == 0)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever comes out is a finding
            verdict = "WRONG"
            what = f"{base.title}: {damage.kind} in {', '.join(damage.changed)} ({where})"
            complaint = f"{type(error).__name__}: {error}"
            self.failures.append(Failure(self.name, str(item), (what, complaint)))
        self.counts[where, damage.kind, verdict] += 1

    def _judge(self, base: Base, damage: Damage, rng: Random, *, is_real: bool) -> str:
        full = base.history.at(base.number)
        acceptable = [full]
        reference = without_ends(base.files, damage, is_closed=base.is_closed)
        cut = None if reference is None else state_of(reference)
        if cut is not None and base.history.numbers(cut):
            acceptable.append(cut)
        read_only = rng.random() < 0.5
        if is_real:
            verdict, state = self._judge_real(damage.files, acceptable, rng, read_only=read_only)
        else:
            machine = machine_with(damage.files)
            try:
                verdict, state = judge(machine, FOLDER, acceptable, rng, read_only=read_only)
                if machine.unreturned():
                    raise WrongAnswerError(f"after the end {machine.unreturned()}")
            finally:
                machine.cut_power()
        return "cut" if state is not None and state != full else verdict

    def _judge_real(
        self, files: Files, acceptable: list[State], rng: Random, *, read_only: bool
    ) -> tuple[str, State | None]:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.makedirs(self._folder)
        self._real += 1
        put_files(PosixEnv(), self._folder, files)
        result = judge(PosixEnv(), self._folder, acceptable, rng, read_only=read_only)
        shutil.rmtree(self._folder)
        return result

    def _count(self, verdict: str | None = None, kind: str | None = None) -> int:
        return sum(
            count
            for (_, made, judged), count in self.counts.items()
            if verdict in (None, judged) and kind in (None, made)
        )

    def figures(self) -> Figures:
        return {
            "databases damaged": self._bases,
            "bit flips": self._count(kind="bit flip"),
            "other damages": self._count() - self._count(kind="bit flip"),
            "of all, on the real disk": self._real,
            "damages refused by open or found by a read or verify": (
                self._count("refused") + self._count("found")
            ),
            "damages with right answers": self._count("right"),
            "damages taken for a crash, at the end of a log or manifest": self._count("cut"),
            "silent wrong answers": self._count("WRONG"),
        }

    def tables(self) -> dict[str, list[list[str]]]:
        kinds = Counter[tuple[str, str]]()
        for (_, kind, verdict), count in self.counts.items():
            kinds[kind, verdict] += count
        rows = [["damage", *VERDICTS]]
        rows += [
            [first, *(str(kinds[first, verdict]) for verdict in VERDICTS)]
            for first in sorted({first for first, _ in kinds})
        ]
        return {"Damages by place and fault": matrix(self.counts), "Damages by kind": rows}


def matrix(counts: Counter[tuple[str, str, str]]) -> list[list[str]]:
    """Return a table of places by faults; a cell has the letter and the count of each verdict."""
    kinds = list(dict.fromkeys(kind for _, kind, _ in sorted(counts)))
    kinds.sort(key=lambda kind: (kind != "bit flip", kind))
    cells: dict[tuple[str, str], list[str]] = {}
    for verdict, letter in zip(VERDICTS, LETTERS, strict=True):
        for (place, kind, judged), count in counts.items():
            if judged == verdict and count:
                cells.setdefault((place, kind), []).append(f"{letter}{count}")
    places = sorted({place for place, _, _ in counts})
    return [
        ["place", *kinds],
        *(
            [place, *(" ".join(cells.get((place, kind), ["-"])) for kind in kinds)]
            for place in places
        ),
    ]
