"""Every byte of a small database is flipped in turn: an error or the right answer, never a lie.

In the normal run one bit of each byte is flipped, in the deep run all eight. Whatever is flipped in
a closed database, an open refuses it, or `verify` finds it, or the byte is one that means nothing.
In a database that a crash left, a flip in what was synced last may look like a torn tail; then the
last commit, and only that one, is gone.

The verdicts are counted by the kind of file; the part flips of `holdfast
torture` counts them by page type.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from holdfast import CorruptionError
from tests.hostile.folders import (
    FOLDER,
    Files,
    State,
    Verdict,
    closed_database,
    closed_with_edits,
    crashed_database,
    examine,
)

HEADER_BLOCK = 4096
HEADER, LINK = range(80), range(2048, 2048 + 48)
RECORD_MAGIC, EDIT_MAGIC = b"HWAL", b"HFER"
UNUSED_STEP = 61
"""Of the bytes that are zero because nothing was written the normal run flips one in so many."""

Counts = Counter[tuple[str, str]]


@pytest.fixture(scope="module")
def closed() -> tuple[Files, State]:
    return closed_database()


@pytest.fixture(scope="module")
def crashed() -> tuple[Files, list[State]]:
    return crashed_database()


def named(files: Files, suffix: str) -> list[str]:
    return [name for name in files if name.endswith(suffix)]


def places_of(data: bytes, magic: bytes) -> list[int]:
    """Return where the records of a log segment or manifest start."""
    found = [at for at in range(0, len(data), 8) if data[at : at + 4] == magic]
    assert found
    return found


def flipped(files: Files, name: str, offset: int, bit: int) -> Files:
    data = bytearray(files[name])
    data[offset] ^= 1 << bit
    return {**files, name: bytes(data)}


def means_nothing(name: str, data: bytes, offset: int) -> bool:
    """Return whether a byte is one that was allocated in a segment and never written."""
    return name.endswith(".wal") and offset >= len(data.rstrip(b"\0"))


def is_last_edit(name: str, data: bytes, offset: int) -> bool:
    """Return whether a byte belongs to the last edit of a manifest, which says that the close was
    clean. Damage there looks like an edit that was never synced.
    """
    return name.endswith(".manifest") and offset >= places_of(data, EDIT_MAGIC)[-1]


def check_places(verdict: Verdict, name: str, files: Files) -> None:
    """Check that errors name the damaged file and a place in it."""
    for error in [*verdict.errors, *verdict.report]:
        if isinstance(error, CorruptionError):
            is_lost_edit = name.endswith(".manifest") and "manifest edit" in error.reason
            assert is_lost_edit or error.file == f"{FOLDER}/{name}", error
            assert 0 <= error.offset <= max(map(len, files.values())), error
            assert error.reason
        else:
            assert name in str(error), error


def one_bit(offset: int) -> list[int]:
    return [random.Random(offset).randrange(8)]


def every_bit(offset: int) -> list[int]:
    return list(range(8))


def flip_closed(
    closed: tuple[Files, State],
    name: str,
    offsets: Iterable[int],
    bits: Callable[[int], list[int]],
    *,
    read_only: bool = True,
) -> Counts:
    """Flip and judge; return how often each verdict came, by the kind of file."""
    files, state = closed
    counts: Counts = Counter()
    for offset in offsets:
        for bit in bits(offset):
            verdict = examine(flipped(files, name, offset, bit), [state], read_only=read_only)
            check_places(verdict, name, files)
            unused = means_nothing(name, files[name], offset)
            if verdict.kind == "harmless":
                excused = unused or is_last_edit(name, files[name], offset)
                assert excused, f"nobody noticed bit {bit} of byte {offset} of {name}"
            else:
                assert not unused, f"byte {offset} of {name} means something"
            counts[name.rpartition(".")[2], verdict.kind] += 1
    return counts


def flip_crashed(
    crashed: tuple[Files, list[State]],
    name: str,
    offsets: Iterable[int],
    bits: Callable[[int], list[int]],
    *,
    read_only: bool = True,
) -> Counts:
    """Flip and judge a database that was not closed: only the last commit may look torn."""
    files, states = crashed
    counts: Counts = Counter()
    last = places_of(files[named(files, ".wal")[0]], RECORD_MAGIC)[-1]
    for offset in offsets:
        is_last = name.endswith(".wal") and offset >= last
        acceptable = states[-2:] if is_last else states[-1:]
        for bit in bits(offset):
            damaged = flipped(files, name, offset, bit)
            verdict = examine(damaged, acceptable, read_only=read_only)
            check_places(verdict, name, files)
            kind = verdict.kind
            if kind == "harmless":
                if verdict.state == states[-1]:
                    unused = means_nothing(name, files[name], offset)
                    assert unused, f"nobody noticed bit {bit} of byte {offset} of {name}"
                else:
                    kind = "last commit cut"
            counts[name.rpartition(".")[2], kind] += 1
    return counts


def log_offsets(data: bytes) -> list[int]:
    """Return the bytes of a segment that are not zero for want of meaning, and some that are."""
    end = len(data.rstrip(b"\0"))
    telling = [*HEADER, *LINK, *range(HEADER_BLOCK, end)]
    others = [at for at in range(len(data)) if at not in telling]
    return sorted(telling + others[::UNUSED_STEP])


def test_flips_in_the_tables_of_a_closed_database(closed: tuple[Files, State]) -> None:
    for name in named(closed[0], ".table"):
        counts = flip_closed(closed, name, range(len(closed[0][name])), one_bit)
        assert set(counts) == {("table", "refused"), ("table", "found")}


def test_flips_in_the_manifest_of_a_closed_database(closed: tuple[Files, State]) -> None:
    """It is one snapshot, which was synced before its marker: all damage is told."""
    (name,) = named(closed[0], ".manifest")
    data = closed[0][name]
    counts = flip_closed(closed, name, range(len(data)), one_bit)
    assert counts == {("manifest", "refused"): len(data)}
    headers = [*range(64), *(at + n for at in places_of(data, EDIT_MAGIC) for n in range(40))]
    flip_closed(closed, name, headers, every_bit)


def test_flips_in_the_manifest_of_a_database_that_had_no_room_for_another_one(
    closed: tuple[Files, State],
) -> None:
    """Its last edit says that it was closed, and the one before is proven by it."""
    files, state = closed_with_edits()
    (name,) = named(files, ".manifest")
    data = files[name]
    places = places_of(data, EDIT_MAGIC)
    assert len(places) > 3
    counts = flip_closed((files, state), name, range(len(data)), one_bit)
    assert counts["manifest", "refused"] == places[-1]
    headers = [*range(64), *(at + n for at in places[::3] for n in range(40))]
    flip_closed((files, state), name, headers, every_bit)


def test_flips_in_the_log_of_a_closed_database(closed: tuple[Files, State]) -> None:
    (name,) = named(closed[0], ".wal")
    data = closed[0][name]
    counts = flip_closed(closed, name, log_offsets(data), one_bit)
    assert counts["wal", "refused"] > 500
    flip_closed(closed, name, [*HEADER, *LINK, *range(HEADER_BLOCK, HEADER_BLOCK + 80)], every_bit)


def test_flips_in_the_log_of_a_crashed_database(crashed: tuple[Files, list[State]]) -> None:
    (name,) = named(crashed[0], ".wal")
    data = crashed[0][name]
    counts = flip_crashed(crashed, name, log_offsets(data), one_bit)
    last = places_of(data, RECORD_MAGIC)[-1]
    assert counts["wal", "last commit cut"] == len(data.rstrip(b"\0")) - last
    flip_crashed(crashed, name, range(last, last + 80), every_bit)


def test_flips_in_the_manifest_of_a_crashed_database(crashed: tuple[Files, list[State]]) -> None:
    (name,) = named(crashed[0], ".manifest")
    counts = flip_crashed(crashed, name, range(len(crashed[0][name])), one_bit)
    assert counts == {("manifest", "refused"): len(crashed[0][name])}


def test_flips_before_an_open_for_writing(
    closed: tuple[Files, State], crashed: tuple[Files, list[State]]
) -> None:
    """What is copied to new files is not taken for good because it is there."""
    for name, data in closed[0].items():
        offsets = log_offsets(data) if name.endswith(".wal") else range(len(data))
        flip_closed(closed, name, offsets[::9], one_bit, read_only=False)
    for name, data in crashed[0].items():
        offsets = log_offsets(data) if name.endswith(".wal") else range(len(data))
        flip_crashed(crashed, name, offsets[4::9], one_bit, read_only=False)


def shown(counts: Counts) -> str:
    return "\n".join(
        f"| {kind} | {verdict} | {n} |" for (kind, verdict), n in sorted(counts.items())
    )


@pytest.mark.deep
@pytest.mark.parametrize("read_only", [True, False], ids=["for reading", "for writing"])
@pytest.mark.parametrize("suffix", [".manifest", ".wal", ".table"])
def test_every_bit_of_a_database(
    closed: tuple[Files, State],
    crashed: tuple[Files, list[State]],
    suffix: str,
    read_only: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts: dict[str, Counts] = {"closed": Counter(), "crashed": Counter()}
    for name in named(closed[0], suffix):
        offsets = range(len(closed[0][name]))
        counts["closed"] += flip_closed(closed, name, offsets, every_bit, read_only=read_only)
    for name in named(crashed[0], suffix):
        offsets = range(len(crashed[0][name]))
        counts["crashed"] += flip_crashed(crashed, name, offsets, every_bit, read_only=read_only)
    with capsys.disabled():
        for state, counted in counts.items():
            print(f"\n{state}, read_only={read_only}\n{shown(counted)}")
