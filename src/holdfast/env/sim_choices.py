"""Which crash states are worth trying: the named classes, as choices over the pending changes of a
moment.

Each class is a generator of choices (name, mask, variants); `sim_crash` describes them. A choice
need not be legal for the profile: what is not legal is cut off afterwards, and what then equals
another state is dropped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise, product

from holdfast.env.sim_disk import FileChange, Resize, Write, Zeros
from holdfast.env.sim_moment import Moment, Variants

Choice = tuple[str, int, Variants]
"""A name, the mask of kept positions, and the variants of some of them."""

_CUTS_MAX = 64
_CUTS_AT_ENDS = 16
_PAIRS_MAX = 64
_SUBSET_NAMES_MAX = 6
_POWER_SET_MAX = 12
_RANDOM_STATES = 16
_TEAR_CHANCE = 0.5


def crash_choices(moment: Moment, kind: str, seed: int) -> Iterator[Choice]:
    """Yield the choices of one class. Raises: KeyError for an unknown class."""
    return _CLASSES[kind](moment, seed)


def _none(moment: Moment, seed: int) -> Iterator[Choice]:
    yield "none", 0, {}


def _all(moment: Moment, seed: int) -> Iterator[Choice]:
    yield "all", moment.full, {}


def _prefix(moment: Moment, seed: int) -> Iterator[Choice]:
    for count in range(1, len(moment.changes)):
        yield f"prefix-{count}", (1 << count) - 1, {}


def _drop_one(moment: Moment, seed: int) -> Iterator[Choice]:
    for position in range(len(moment.changes)):
        yield f"drop-one-{position}", moment.full & ~(1 << position), {}
    if moment.profile.size_before_data and moment.profile.garbage_in_room:
        for number in moment.files():
            for position in _reaching(moment, number):
                filled = _grown_over(moment, number, position, "garbage", seed)
                yield f"drop-one-{position}-garbage", moment.full, {position: filled}


def _only_one(moment: Moment, seed: int) -> Iterator[Choice]:
    for position in range(len(moment.changes)):
        yield f"only-one-{position}", 1 << position, {}


# --- torn writes ---


def _torn_last(moment: Moment, seed: int) -> Iterator[Choice]:
    for number in moment.files():
        writes = [p for p in moment.positions(number) if isinstance(moment.file_change(p), Write)]
        if writes:
            for name, pieces in _tears(moment, number, writes[-1], seed):
                yield f"torn-last-{writes[-1]}-{name}", moment.full, {writes[-1]: pieces}


def _tears(
    moment: Moment, number: int, position: int, seed: int
) -> Iterator[tuple[str, tuple[FileChange, ...]]]:
    """Yield what may be left of one write, by name."""
    write = moment.file_change(position)
    assert isinstance(write, Write)
    profile = moment.profile
    cuts = _cuts(moment, number, write)
    grows = moment.reaches(number, position)
    yield "empty", ()
    for cut in _sampled(cuts, random.Random(f"{seed}/cuts")):
        yield f"cut-{cut}", (_part(write, write.offset, cut),)
    if cuts and (not grows or profile.size_before_data):
        head, tail = cuts[0], cuts[-1]
        yield "no-first", (_part(write, head, write.end),)
        yield "no-last", (_part(write, write.offset, tail), _size_of(write))
        if len(cuts) > 1:
            pieces = (_part(write, write.offset, head), _part(write, tail, write.end))
            yield "no-middle", pieces
    if grows and profile.size_before_data:
        yield "size", (_size_of(write),)
        middle = cuts[len(cuts) // 2] if cuts else write.offset
        kept = _part(write, write.offset, middle)
        for fill in _fills(moment)[:2]:
            rest = _filled(write, max(middle, moment.durable[number].size), fill, seed)
            yield f"cut-{middle}-{fill}", (kept, rest)
    if profile.torn_sectors:
        first = write.offset, cuts[0] if cuts else write.end
        last = cuts[-1] if cuts else write.offset, write.end
        for low, high in dict.fromkeys((first, last)):
            middle = (low + high) // 2
            torn = _part(write, write.offset, high)
            for fill in ("zeros", "garbage"):
                rest = _filled(torn, middle, fill, seed)
                yield f"torn-{middle}-{fill}", (_part(write, write.offset, middle), rest)


def _cuts(moment: Moment, number: int, write: Write) -> list[int]:
    """Return the sector boundaries strictly inside a write at which it may be cut."""
    sector = moment.profile.sector_bytes
    first = write.offset // sector + 1
    if moment.profile.overwrites_atomic:
        first = max(first, -(-moment.durable[number].size // sector))
    return list(range(first * sector, write.end, sector))


def _fills(moment: Moment) -> tuple[str, ...]:
    """Return what may be read where a file has grown before its data."""
    return ("zeros", "garbage", "stale") if moment.profile.garbage_in_room else ("zeros",)


def _sampled(cuts: list[int], chance: random.Random) -> list[int]:
    """Return all cuts, or those at both ends and some of the middle."""
    if len(cuts) <= _CUTS_MAX:
        return cuts
    middle = cuts[_CUTS_AT_ENDS:-_CUTS_AT_ENDS]
    some = sorted(chance.sample(middle, _CUTS_MAX - 2 * _CUTS_AT_ENDS))
    return cuts[:_CUTS_AT_ENDS] + some + cuts[-_CUTS_AT_ENDS:]


def _part(write: Write, start: int, end: int) -> Write:
    """Return the bytes of a write from `start` to `end` in the file."""
    data = write.data[start - write.offset : end - write.offset]
    return Write(write.index, write.site, start, data)


def _size_of(change: FileChange) -> Zeros:
    """Return a change that only makes the file reach where `change` ends."""
    return Zeros(change.index, change.site, change.end, change.end)


def _filled(write: Write, start: int, fill: str, seed: int) -> FileChange:
    """Return zeros or garbage from `start` to the end of a write."""
    return _blot(write, start, write.end, fill, seed)


def _blot(change: FileChange, start: int, end: int, fill: str, seed: int) -> FileChange:
    """Return zeros or garbage from `start` to `end`, as a piece of a change."""
    if fill == "zeros":
        return Zeros(change.index, change.site, start, end)
    noise = random.Random(f"{seed}/{change.index}/{start}").randbytes(end - start)
    return Write(change.index, change.site, start, noise)


# --- damaged neighbours ---


def _collateral(moment: Moment, seed: int) -> Iterator[Choice]:
    if not moment.profile.collateral:
        return
    for number in moment.files():
        for position in moment.positions(number):
            for name, pieces in _damages(moment, number, position, seed):
                before = (2 << position) - 1
                yield f"collateral-{position}-{name}", moment.full, {position: pieces}
                yield f"collateral-{position}-{name}-prefix", before, {position: pieces}


def _damages(
    moment: Moment, number: int, position: int, seed: int
) -> Iterator[tuple[str, tuple[FileChange, ...]]]:
    """Yield what a write may do to a sector that holds durable bytes beside it, by name.

    The sector may be lost whole, or only what lies beside the write.
    """
    write = moment.file_change(position)
    if not isinstance(write, Write):
        return
    size = _durable_size(moment, number, position)
    sector = moment.profile.sector_bytes
    first, last = (place // sector * sector for place in (write.offset, write.end - 1))
    for start in dict.fromkeys((first, last)):
        end = min(start + sector, max(size, write.end))
        sides = (start, write.offset), (write.end, end)
        beside = [(low, high) for low, high in sides if low < min(high, size)]
        if not beside:
            continue
        for fill in ("zeros", "garbage"):
            blots = [_blot(write, low, high, fill, seed) for low, high in beside]
            yield f"{start}-{fill}", (write, *blots)
            yield f"{start}-{fill}-whole", (write, _blot(write, start, end, fill, seed))


def _durable_size(moment: Moment, number: int, position: int) -> int:
    """Return how much of what is durable of a file no truncation before `position` takes away."""
    size = moment.durable[number].size
    for earlier in moment.positions(number):
        change = moment.file_change(earlier)
        if earlier < position and isinstance(change, Resize):
            size = min(size, change.end)
    return size


# --- sizes ---


def _size_skew(moment: Moment, seed: int) -> Iterator[Choice]:
    for number in moment.files():
        reaching = _reaching(moment, number)
        if not reaching:
            continue
        last = reaching[-1]
        if moment.profile.size_before_data:
            for fill in _fills(moment):
                variants = {p: _grown_over(moment, number, p, fill, seed) for p in reaching}
                yield f"size-skew-{last}-all-{fill}", moment.full, variants
                yield f"size-skew-{last}-{fill}", moment.full, {last: variants[last]}
        size = 0 if moment.profile.overwrites_atomic else moment.durable[number].size
        clipped = {
            position: _inside(moment.file_change(position), size)
            for position in moment.positions(number)
            if moment.reaches(number, position)
        }
        yield f"size-skew-{last}-short", moment.full, clipped


def _reaching(moment: Moment, number: int) -> list[int]:
    """Return the positions of the writes of a file that end beyond what is durable of it."""
    return [
        position
        for position in moment.positions(number)
        if isinstance(moment.file_change(position), Write | Zeros)
        and moment.reaches(number, position)
    ]


def _grown_over(
    moment: Moment, number: int, position: int, fill: str, seed: int
) -> tuple[FileChange, ...]:
    """Return a write whose size survived and whose new room holds zeros, garbage or stale bytes.

    What it does inside the durable size survived where that can be.
    """
    change = moment.file_change(position)
    assert isinstance(change, Write | Zeros)
    size = moment.durable[number].size
    start = max(change.offset, size)
    pieces = list(_inside(change, _divisible(moment, size)))
    if fill == "zeros":
        pieces.append(Zeros(change.index, change.site, start, change.end))
    elif fill == "garbage":
        noise = random.Random(f"{seed}/{change.index}/{start}").randbytes(change.end - start)
        pieces.append(Write(change.index, change.site, start, noise))
    else:
        old = _stale_bytes(moment, number, start, change.end - start)
        pieces.append(_size_of(change))
        pieces.append(Write(change.index, change.site, start, old))
    return tuple(pieces)


def _divisible(moment: Moment, size: int) -> int:
    """Return the greatest part of `size` that a write may do without the rest."""
    profile = moment.profile
    if profile.overwrites_atomic:
        return 0
    return size if profile.torn_sectors else size // profile.sector_bytes * profile.sector_bytes


def _inside(change: FileChange, size: int) -> tuple[FileChange, ...]:
    """Return what a change does below `size`."""
    if isinstance(change, Write) and change.offset < size:
        return (_part(change, change.offset, min(size, change.end)),)
    return ()


def _stale_bytes(moment: Moment, number: int, start: int, count: int) -> bytes:
    """Return what another file of the same kind holds at the same place: blocks are reused."""
    suffix = moment.paths[number].rpartition(".")[2]
    for other in sorted(moment.durable, reverse=True):
        if other != number and moment.paths[other].rpartition(".")[2] == suffix:
            data = moment.durable[other].read(start, count)
            if data:
                return data
    return b""


# --- combinations ---


def _dir_subset(moment: Moment, seed: int) -> Iterator[Choice]:
    positions = moment.name_positions()
    count = len(positions)
    files = moment.full
    for position in positions:
        files &= ~(1 << position)
    logged = moment.logged()
    everything = (1 << count) - 1
    if count <= _SUBSET_NAMES_MAX:
        subsets = list(range(1 << count))
    else:
        few = [0, *(1 << i for i in range(count))]
        few += [1 << i | 1 << j for i, j in combinations(range(count), 2)]
        subsets = few + [everything & ~subset for subset in few]
    for subset in subsets:
        names = sum(1 << position for i, position in enumerate(positions) if subset >> i & 1)
        yield f"dir-subset-{subset}-data", names | files, {}
        yield f"dir-subset-{subset}-nodata", names | logged, {}


def _file_cuts(moment: Moment, seed: int) -> Iterator[Choice]:
    for one, other in combinations(moment.files(), 2):
        first, second = moment.positions(one), moment.positions(other)
        cuts = list(product(range(len(first) + 1), range(len(second) + 1)))
        if len(cuts) > _PAIRS_MAX:
            cuts = sorted(random.Random(f"{seed}/pairs").sample(cuts, _PAIRS_MAX))
        for i, j in cuts:
            lost = sum(1 << position for position in (*first[i:], *second[j:]))
            yield f"file-cuts-{one}-{i}-{other}-{j}", moment.full & ~lost, {}


def _lost_syncs(moment: Moment, seed: int) -> Iterator[Choice]:
    synced = moment.lies()
    for lost in range(1 << len(synced) if synced else 0):
        kept = gone = 0
        for i, covered in enumerate(synced):
            if lost >> i & 1:
                gone |= covered
            else:
                kept |= covered
        yield f"lost-syncs-{lost}", kept, {}
        yield f"lost-syncs-{lost}-rest", moment.full & ~(gone & ~kept), {}


def _random(moment: Moment, seed: int) -> Iterator[Choice]:
    collateral = moment.profile.collateral
    for count in range(_RANDOM_STATES):
        chance = random.Random(f"{seed}/random/{count}")
        keep = chance.random()
        mask = sum(1 << i for i in range(len(moment.changes)) if chance.random() < keep)
        variants: Variants = {}
        for number in moment.files():
            kept = [p for p in moment.positions(number) if mask >> p & 1]
            writes = [p for p in kept if isinstance(moment.file_change(p), Write)]
            if writes and chance.random() < _TEAR_CHANCE:
                position = chance.choice(writes)
                damages = list(_damages(moment, number, position, seed)) if collateral else []
                if damages and chance.random() < _TEAR_CHANCE:
                    variants[position] = chance.choice(damages)[1]
                else:
                    variants[position] = _scattered(moment, number, position, chance)
        yield f"random-{seed}-{count}", mask, variants


def _scattered(
    moment: Moment, number: int, position: int, chance: random.Random
) -> tuple[FileChange, ...]:
    """Return a random part of the sectors of a write; a prefix where the profile keeps order."""
    write = moment.file_change(position)
    assert isinstance(write, Write)
    edges = [write.offset, *_cuts(moment, number, write), write.end]
    if moment.reaches(number, position) and not moment.profile.size_before_data:
        return (_part(write, write.offset, chance.choice(edges)),)
    kept = [pair for pair in pairwise(edges) if chance.random() < 0.5]
    return tuple(_part(write, low, high) for low, high in kept)


def _power_set(moment: Moment, seed: int) -> Iterator[Choice]:
    if len(moment.changes) <= _POWER_SET_MAX:
        for mask in range(moment.full + 1):
            yield f"power-set-{mask}", mask, {}


_CLASSES: dict[str, Callable[[Moment, int], Iterator[Choice]]] = {
    "none": _none,
    "all": _all,
    "prefix": _prefix,
    "drop-one": _drop_one,
    "only-one": _only_one,
    "torn-last": _torn_last,
    "size-skew": _size_skew,
    "collateral": _collateral,
    "dir-subset": _dir_subset,
    "file-cuts": _file_cuts,
    "lost-syncs": _lost_syncs,
    "random": _random,
    "power-set": _power_set,
}

CRASH_CLASSES = tuple(name for name in _CLASSES if name != "power-set")
"""The classes that are tried unless others are asked for."""
