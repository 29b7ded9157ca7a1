"""Torture by bit flips, quickly: every bit of two small databases, and sampled other damage.

Each damage is judged by the code that reads the file (`torture_flips_judge`), which is a hundred
times quicker than opening a database. One in so many is also judged by opening the whole database,
by reads, by `verify` of the open one and by the check of the closed folder; all must agree.

Even items are flips of single bits, each bit once, in an order that spreads over the whole; when
all were flipped, and as odd items, come damages of other kinds, drawn at random.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from math import gcd
from random import Random

from holdfast.recovery import check_folder
from holdfast.testing import encrypted
from holdfast.testing.oracle import FOLDER
from holdfast.testing.torture_damage import (
    Damage,
    WrongAnswerError,
    judge,
    machine_with,
    matrix,
)
from holdfast.testing.torture_flips_base import Unit, World, make_world
from holdfast.testing.torture_flips_judge import Judge
from holdfast.testing.torture_part import Failure, Figures, Part, bounded

WHOLE_EVERY = 97
"""One damage in so many is judged by the whole database as well. Odd, so that both kinds of items
are."""

STEP_ITEMS = 50
"""Items between two looks at the clock."""

SECTOR_BYTES = 512
_STRIDE = 0.6180339887498949
_BURST_BYTES_MAX = 16

Piece = tuple[str, bytes]
"""A file's name and what it holds after the damage."""


# --- damages of one unit


def _bits(rng: Random, world: World, unit: Unit) -> list[Piece]:
    data = bytearray(world.files[unit.name])
    for _ in range(rng.randrange(2, 9)):
        data[unit.start + rng.randrange(unit.size)] ^= 1 << rng.randrange(8)
    return [(unit.name, bytes(data))]


def _burst(rng: Random, world: World, unit: Unit) -> list[Piece]:
    size = rng.randrange(1, min(_BURST_BYTES_MAX, unit.size) + 1)
    at = unit.start + rng.randrange(unit.size - size + 1)
    return [_put(world, unit.name, at, rng.randbytes(size))]


def _zeroed(rng: Random, world: World, unit: Unit) -> list[Piece]:
    return [_put(world, unit.name, unit.start, bytes(unit.size))]


def _garbage(rng: Random, world: World, unit: Unit) -> list[Piece]:
    return [_put(world, unit.name, unit.start, rng.randbytes(unit.size))]


def _sector_zeroed(rng: Random, world: World, unit: Unit) -> list[Piece]:
    at, size = _sector(rng, world, unit)
    return [_put(world, unit.name, at, bytes(size))]


def _sector_garbage(rng: Random, world: World, unit: Unit) -> list[Piece]:
    at, size = _sector(rng, world, unit)
    return [_put(world, unit.name, at, rng.randbytes(size))]


def _duplicated(rng: Random, world: World, unit: Unit) -> list[Piece]:
    """Another unit of a file of this kind stands here as well."""
    other = _kin(rng, world, unit)
    return [_put(world, unit.name, unit.start, _content(world, other)[: unit.size])]


def _swapped(rng: Random, world: World, unit: Unit) -> list[Piece]:
    other = _kin(rng, world, unit)
    size = min(unit.size, other.size)
    mine, its = _content(world, unit)[:size], _content(world, other)[:size]
    first = _put(world, unit.name, unit.start, its)
    if other.name != unit.name:
        return [first, _put(world, other.name, other.start, mine)]
    data = first[1]
    return [(unit.name, data[: other.start] + mine + data[other.start + size :])]


def _lost(rng: Random, world: World, unit: Unit) -> list[Piece]:
    """The unit was never written: its place holds what it held before."""
    old = rng.choice(world.earlier).get(unit.name, b"")[unit.start :][: unit.size]
    if unit.name in world.tables or not old:
        # The place belonged to another file then.
        old = (world.files[_kin(rng, world, unit).name][unit.start :])[: unit.size]
    return [_put(world, unit.name, unit.start, old)]


def _misdirected(rng: Random, world: World, unit: Unit) -> list[Piece]:
    """A sector of any file was written here."""
    source = world.files[rng.choice([name for name, data in world.files.items() if data])]
    start = rng.randrange(0, len(source), SECTOR_BYTES)
    at, size = _sector(rng, world, unit)
    return [_put(world, unit.name, at, source[start : start + SECTOR_BYTES][:size])]


def _cut_short(rng: Random, world: World, unit: Unit) -> list[Piece]:
    return [(unit.name, world.files[unit.name][: unit.start + rng.randrange(unit.size)])]


def _extended(rng: Random, world: World, unit: Unit) -> list[Piece]:
    tail = rng.choice((bytes(8), bytes(SECTOR_BYTES), rng.randbytes(40), _content(world, unit)))
    return [(unit.name, world.files[unit.name] + tail)]


FLIP = "bit flip"
FAULTS: dict[str, Callable[[Random, World, Unit], list[Piece]]] = {
    "2-8 bits": _bits,
    "burst": _burst,
    "zeroed": _zeroed,
    "garbage": _garbage,
    "sector zeroed": _sector_zeroed,
    "sector garbage": _sector_garbage,
    "duplicated": _duplicated,
    "swapped": _swapped,
    "lost write": _lost,
    "misdirected": _misdirected,
    "cut short": _cut_short,
    "extended": _extended,
}


def _put(world: World, name: str, at: int, piece: bytes) -> Piece:
    data = world.files[name]
    return name, data[:at] + piece + data[at + len(piece) :]


def _content(world: World, unit: Unit) -> bytes:
    return world.files[unit.name][unit.start : unit.start + unit.size]


def _sector(rng: Random, world: World, unit: Unit) -> tuple[int, int]:
    """Return offset and size of a sector that a unit touches."""
    at = (unit.start + rng.randrange(unit.size)) // SECTOR_BYTES * SECTOR_BYTES
    return at, min(SECTOR_BYTES, len(world.files[unit.name]) - at)


def _kin(rng: Random, world: World, unit: Unit) -> Unit:
    """Return another unit of a file of this kind, half the time of the same sort; the same one
    where there is no other.
    """
    suffix = unit.name.rpartition(".")[2]
    found = [u for u in world.units if u.name.endswith(suffix) and u is not unit and u.size]
    alike = [u for u in found if u.kind == unit.kind]
    return rng.choice((alike if alike and rng.random() < 0.5 else found) or [unit])


# --- drawing


class Drawing:
    """The damages of a database by number."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._counted = [unit for unit in world.units if not unit.is_sampled and unit.size]
        self._ends = list(accumulate(8 * unit.size for unit in self._counted))
        self.bits = self._ends[-1]
        """How many single bits there are to flip."""
        stride = int(self.bits * _STRIDE)
        while gcd(stride, self.bits) != 1:
            stride += 1
        self._stride = stride
        kinds: dict[str, list[Unit]] = {}
        for unit in world.units:
            if unit.kind != "marker, name" and unit.size:
                kinds.setdefault(unit.kind, []).append(unit)
        self._kinds = list(kinds.values())

    def flip(self, number: int) -> tuple[Unit, Damage]:
        """Return the flip with this number, below `bits`; each bit has one number."""
        at = number * self._stride % self.bits
        index = bisect_right(self._ends, at)
        unit = self._counted[index]
        bit = at - (self._ends[index] - 8 * unit.size)
        files = dict(self.world.files)
        if unit.kind == "marker, name":
            renamed = bytearray(unit.name.encode())
            renamed[bit // 8] ^= 1 << bit % 8
            content = files.pop(unit.name)
            # No folder shows a name with a slash: then the file is gone.
            if b"/" not in renamed:
                files[renamed.decode("latin-1")] = content
            return unit, Damage(FLIP, files, [unit.name])
        data = bytearray(files[unit.name])
        data[unit.start + bit // 8] ^= 1 << bit % 8
        files[unit.name] = bytes(data)
        return unit, Damage(FLIP, files, [unit.name])

    def draw(self, rng: Random) -> tuple[Unit, Damage]:
        """Return another damage, which changes something."""
        while True:
            unit = rng.choice(rng.choice(self._kinds))
            kind = rng.choice(list(FAULTS))
            pieces = FAULTS[kind](rng, self.world, unit)
            files = {**self.world.files, **dict(pieces)}
            changed = [name for name, data in pieces if data != self.world.files[name]]
            if changed:
                return unit, Damage(kind, files, changed)


class FlipsPart(Part):
    """Item K is one damage of the closed or of the killed database."""

    name = "flips"

    def __init__(self, seed: int, first: int = 0) -> None:
        self.failures: list[Failure] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By what was hit, the kind of damage and the verdict."""
        self._seed = seed
        self._first = self._next = first
        self._whole = 0
        self._drawings: list[Drawing] = []
        self._judges: list[Judge] = []

    def step(self) -> None:
        for _ in range(STEP_ITEMS):
            item, self._next = self._next, self._next + 1
            self._do(item)

    def replay(self, item: str) -> None:
        self._do(int(item))

    def _prepare(self) -> None:
        if not self._drawings:
            worlds = [make_world(self._seed, is_closed=is_closed) for is_closed in (True, False)]
            self._judges = [Judge(world) for world in worlds]
            self._drawings = [Drawing(world) for world in worlds]

    def _draw(self, item: int) -> tuple[int, Unit, Damage]:
        """Return the number of the database, what is hit and the damage."""
        self._prepare()
        number = item // 2
        closed, killed = self._drawings
        if item % 2 == 0 and number < closed.bits + killed.bits:
            # The two take turns as long as both have bits that were not flipped.
            least = min(closed.bits, killed.bits)
            which, bit = number % 2, number // 2
            if number >= 2 * least:
                which, bit = int(killed.bits > closed.bits), number - least
            return which, *self._drawings[which].flip(bit)
        rng = Random(f"{self._seed}/flips/{item}")
        which = rng.randrange(2)
        return which, *self._drawings[which].draw(rng)

    def _do(self, item: int) -> None:
        which, unit, damage = self._draw(item)
        try:
            with bounded():
                verdict = self._judges[which].judge(damage)
                if item % WHOLE_EVERY == 0:
                    self._whole += 1
                    compare(self._drawings[which].world, damage, verdict, Random(item))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever comes out is a finding
            verdict = "WRONG"
            title = self._drawings[which].world.title
            what = f"{title}: {damage.kind} in {', '.join(damage.changed)} ({unit.kind})"
            complaint = f"{type(error).__name__}: {error}"
            self.failures.append(Failure(self.name, str(item), (what, complaint)))
        self.counts[unit.kind, damage.kind, verdict] += 1

    def figures(self) -> Figures:
        def count(*verdicts: str) -> int:
            return sum(n for (_, _, verdict), n in self.counts.items() if verdict in verdicts)

        self._prepare()
        total = sum(drawing.bits for drawing in self._drawings)
        first, last = ((at + 1) // 2 for at in (self._first, self._next))
        asked = sum(judge.asked for judge in self._judges)
        answered = sum(judge.answered for judge in self._judges)
        return {
            "damages": self.counts.total(),
            "items": f"{self._first} to {self._next - 1}",
            "single bits of pages, records and headers": total,
            "single bits flipped, each once": min(last, total) - min(first, total),
            "other damages": sum(n for (_, k, _), n in self.counts.items() if k != FLIP),
            "judged by the whole database as well": self._whole,
            "damages refused or found": count("refused", "found"),
            "damages with right answers": count("right"),
            "damages taken for a crash, at the end of a log or manifest": count("cut"),
            "keys asked for beside damage of data, index and filter pages": asked,
            "of these answered, rightly": answered,
            "silent wrong answers": count("WRONG"),
        }

    def tables(self) -> dict[str, list[list[str]]]:
        return {"Flips by page type and fault": matrix(self.counts)}


def compare(world: World, damage: Damage, verdict: str, rng: Random) -> None:
    """Check that the whole database says of a damage what its file said.

    Raises: WrongAnswerError.
    """
    machine = machine_with(damage.files)
    try:
        is_sound = check_folder(machine, FOLDER, source=encrypted.source()).ok
    finally:
        machine.cut_power()
    if is_sound != (verdict in ("right", "cut")):
        raise WrongAnswerError(f"it is {verdict}, and a check says {is_sound}")
    machine = machine_with(damage.files)
    try:
        acceptable = world.states[-1:] if verdict != "cut" else world.states[:-1]
        found, _ = judge(machine, FOLDER, acceptable, rng, read_only=rng.random() < 0.5)
        if machine.unreturned():
            raise WrongAnswerError(f"after the end {machine.unreturned()}")
    finally:
        machine.cut_power()
    if (found == "right") != (verdict in ("right", "cut")):
        raise WrongAnswerError(f"its file is {verdict}, the database is {found}")
