"""The plain face of a sealed manifest: what it shows of frames that are whole, torn or misplaced.

The frames are made with a key that the test has, so that each rule is met by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from struct import Struct
from typing import Any

import pytest

from holdfast.base import CorruptionError
from holdfast.crypto import PREAMBLE_BYTES, SEAL_BYTES, FileCipher, Secret, Suite
from holdfast.crypto.suite import make_aead
from holdfast.env import SimEnv
from holdfast.manifest import ManifestSealing, sealed
from holdfast.manifest.format import Header
from holdfast.manifest.sealed import ManifestAtRest, ManifestUnderWay

PATH = "/00000001.manifest"
MAGIC = b"HWSM"
PLACE = Struct("<16sQII")
FRAME_MIN = 8 + SEAL_BYTES + PLACE.size
PREAMBLE = b"p" * PREAMBLE_BYTES


def cipher() -> FileCipher:
    aead = make_aead(Suite.AES_256_GCM, Secret(b"k" * 32))
    return FileCipher(aead, b"context", random.Random(1).randbytes)


def first(alignment: int = 8) -> bytes:
    header = Header(1, bytes(range(16)), 77, alignment=alignment)
    return header.encode() + b"first".ljust(448, b"\x00")


class Made:
    """A sealed manifest, where its frames stand, and what is plain in them."""

    def __init__(self, *parts: bytes, alignment: int = 8) -> None:
        self.env = SimEnv(1)
        self.file = self.env.create(PATH, site="test")
        self.under_way = ManifestUnderWay(self.file, cipher(), PREAMBLE)
        self.alignment = alignment
        self.parts: list[bytes] = []
        self.places: list[tuple[int, int]] = []
        for part in (first(alignment), *parts):
            self.write(part)

    def write(self, part: bytes) -> None:
        start = self.places[-1][1] if self.places else PREAMBLE_BYTES
        self.under_way.write_at(self.under_way.size(), part, site="test")
        self.parts.append(part)
        self.places.append((start, self.env.file_size(PATH)))

    def stored(self) -> bytes:
        return self.env.open(PATH).read_at(0, 1 << 30)

    def plain(self) -> bytes:
        return b"".join(self.parts)


def at_rest(stored: bytes) -> ManifestAtRest:
    env = SimEnv(1)
    env.create(PATH, site="test").write_at(0, stored, site="test")
    return ManifestAtRest(env.open(PATH), cipher())


def shown(stored: bytes) -> bytes:
    return at_rest(stored).read_at(0, 1 << 30)


def refused(stored: bytes, match: str) -> int:
    """Where the damage is said to be."""
    with pytest.raises(CorruptionError, match=match) as caught:
        shown(stored)
    assert caught.value.file == PATH
    offset: int = caught.value.offset
    return offset


def put(stored: bytes, at: int, data: bytes) -> bytes:
    return stored[:at] + data + stored[at + len(data) :]


def frame(at: int, chain: bytes, offset: int, size: int, kept: bytes, zero: int = 0) -> bytes:
    """A frame that opens at byte `at`, whatever it says."""
    content = PLACE.pack(chain, offset, size, zero) + kept
    fields = MAGIC + (len(content) + SEAL_BYTES).to_bytes(4, "little")
    whole = fields + cipher().seal(at, content, fields)
    return whole + bytes(-(at + len(whole)) % 8)


def tag(made: Made, index: int) -> bytes:
    """What the frame behind that one continues."""
    start, _ = made.places[index]
    data = made.stored()
    end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    return data[end - 16 : end]


@pytest.mark.parametrize("alignment", [8, 512, 4096])
def test_what_was_written_is_read_and_each_frame_ends_at_the_alignment(alignment: int) -> None:
    made = Made(b"second".ljust(512, b"\x00"), b"third \x00\x01", alignment=alignment)
    assert made.under_way.size() == len(made.plain())
    assert [end % alignment for _, end in made.places] == [0, 0, 0]
    face = at_rest(made.stored())
    assert (face.size(), face.read_at(0, 1 << 20)) == (len(made.plain()), made.plain())
    assert face.read_at(60, 10) == made.plain()[60:70]
    assert face.read_salvaged() == made.plain()
    assert made.stored()[:PREAMBLE_BYTES] == PREAMBLE
    assert all(made.stored()[start : start + 4] == MAGIC for start, _ in made.places)


def test_the_smallest_frame_at_the_end_of_the_file_is_read() -> None:
    made = Made(bytes(8))
    assert made.places[-1][1] - made.places[-1][0] == FRAME_MIN
    assert shown(made.stored()) == made.plain()


def test_a_write_that_is_to_be_synced_is() -> None:
    made = Made()
    made.env.sync_dir("/", site="test")
    made.under_way.write_and_sync_at(
        made.under_way.size(), b"synced !", site="a.write", sync_site="a.sync"
    )
    assert [op.site for op in made.env.op_log][-2:] == ["a.write", "a.sync"]
    assert shown(made.stored()) == made.plain() + b"synced !"


def test_a_manifest_is_only_appended_to() -> None:
    made = Made()
    for offset in (0, made.under_way.size() - 1, made.under_way.size() + 1):
        with pytest.raises(AssertionError, match="appended"):
            made.under_way.write_at(offset, first(), site="test")
    with pytest.raises(AssertionError, match="taken back"):
        made.under_way.truncate(made.under_way.size() - 1, site="test")


def test_a_write_that_failed_is_taken_back_and_its_place_is_used_again() -> None:
    made = Made(b"second !")
    made.file.write_at(made.places[-1][1], b"a part of a frame", site="test")
    made.under_way.truncate(made.under_way.size(), site="test")
    assert made.env.file_size(PATH) == made.places[-1][1]
    made.write(b"third !!")
    assert shown(made.stored()) == made.plain()


@pytest.mark.parametrize("alignment", [8, 512])
def test_a_last_frame_that_is_torn_anywhere_shows_one_byte_that_is_no_record(
    alignment: int,
) -> None:
    made = Made(b"second".ljust(100, b"\x00"), alignment=alignment)
    stored, (start, end) = made.stored(), made.places[-1]
    for cut in range(start + 1, end):
        assert shown(stored[:cut]) == made.parts[0] + b"\xff", cut
    assert shown(stored[:start]) == made.parts[0]
    assert shown(put(stored, start, b"?")) == made.parts[0] + b"\xff"
    if alignment > 8:
        assert shown(put(stored, end - 1, b"?")) == made.parts[0] + b"\xff"


@pytest.mark.parametrize("at", ["magic", "content", "padding"])
def test_a_damaged_frame_before_one_that_opens_is_refused(at: str) -> None:
    made = Made(b"second".ljust(100, b"\x00"), b"third".ljust(100, b"\x00"), alignment=512)
    start, end = made.places[1]
    where = {"magic": start, "content": start + 30, "padding": end - 1}[at]
    damaged = put(made.stored(), where, b"?")
    assert refused(damaged, "another follows it") == start
    expected = made.plain()
    if at != "padding":
        a, b = len(made.parts[0]), len(made.parts[0] + made.parts[1])
        expected = expected[:a] + b"\xff" * (b - a) + expected[b:]
    assert at_rest(damaged).read_salvaged() == expected


def test_a_first_frame_that_does_not_open_is_damage() -> None:
    made = Made(b"second !")
    stored = made.stored()
    for damaged in (put(stored, PREAMBLE_BYTES + 80, b"?"), stored[:PREAMBLE_BYTES]):
        assert refused(damaged, "first record is damaged") == PREAMBLE_BYTES


def test_a_frame_of_another_history_of_the_file_does_not_belong_there() -> None:
    """The same place, the same key and the same size: only what it continues is another."""
    one = Made(b"second 1", b"third !!")
    other = Made(b"second 2", b"third !!")
    start, end = one.places[2]
    mixed = one.stored()[:start] + other.stored()[start:end]
    assert refused(mixed, "does not belong here") == start


def test_a_frame_that_says_another_plain_place_does_not_belong_there() -> None:
    made = Made()
    at, size = made.places[0][1], made.under_way.size()
    for offset in (size - 8, size + 8):
        wrong = frame(at, tag(made, 0), offset, 8, b"x" * 8)
        assert refused(made.stored() + wrong, "does not belong here") == at
    right = frame(at, tag(made, 0), size, 8, b"x" * 8)
    assert shown(made.stored() + right) == made.plain() + b"x" * 8


@pytest.mark.parametrize(
    ("size", "zero", "is_right"),
    [(8, 0, True), (7, 0, False), (8, 1, False), (8 + 4104, 0, True), (8 + 4105, 0, False)],
)
def test_a_frame_has_at_most_a_padding_of_zeros(size: int, zero: int, is_right: bool) -> None:
    made = Made()
    whole = frame(made.places[0][1], tag(made, 0), made.under_way.size(), size, b"x" * 8, zero=zero)
    added = (b"x" * 8).ljust(size, b"\x00") if is_right else b"\xff"
    assert shown(made.stored() + whole) == made.plain() + added


def test_a_longer_file_than_any_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made()
    size = len(made.stored())
    monkeypatch.setattr(sealed, "SEALED_BYTES_MAX", size)
    assert shown(made.stored()) == made.plain()
    monkeypatch.setattr(sealed, "SEALED_BYTES_MAX", size - 1)
    assert refused(made.stored(), f"a manifest of {size} bytes is longer than any") == size - 1


def test_a_frame_is_salvaged_only_where_a_manifest_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a frame says of its place takes no memory beyond that of the longest manifest."""
    made = Made()
    at = made.places[0][1]
    stored = made.stored() + frame(at, bytes(16), 5000, 8, b"x" * 8)
    monkeypatch.setattr(sealed, "SEALED_BYTES_MAX", 5008)
    expected = made.plain().ljust(5000, b"\xff") + b"x" * 8
    assert at_rest(stored).read_salvaged() == expected
    monkeypatch.setattr(sealed, "SEALED_BYTES_MAX", 5007)
    assert at_rest(stored).read_salvaged() == made.plain()


def test_frames_are_salvaged_in_any_order() -> None:
    made = Made()
    at, size = made.places[0][1], made.under_way.size()
    later = frame(at, bytes(16), size + 8, 8, b"z" * 8)
    earlier = frame(at + len(later), bytes(16), size, 8, b"a" * 8)
    stored = made.stored() + later + earlier
    assert at_rest(stored).read_salvaged() == made.plain() + b"a" * 8 + b"z" * 8


def behind(made: Made, filler: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """A manifest with `filler` behind it, given where it stands, and a frame that opens behind
    that; what is plain in the frame.
    """
    stored = made.stored()
    stored += filler(len(stored))
    kept = b"behind !"
    return stored + frame(len(stored), bytes(16), made.under_way.size(), 8, kept), kept


@pytest.mark.parametrize("count", [62, 63, 64])
def test_so_many_places_that_look_like_frames_are_tried_and_no_more(count: int) -> None:
    """As it is read, too many count as one that follows; a salvage ends there."""
    made = Made()
    unit = MAGIC + (100).to_bytes(4, "little") + b"x" * 56
    stored, kept = behind(made, lambda _: unit * count)
    refused(stored, "another follows it")
    found = kept if count < 64 else b""
    assert at_rest(stored).read_salvaged() == made.plain() + found
    alone = stored[: -FRAME_MIN - 8]
    if count < 64:
        # The last of them lacks bytes of what it claims, and the first is the damaged place.
        assert shown(alone) == made.plain() + b"\xff"
    assert at_rest(alone).read_salvaged() == made.plain()


@pytest.mark.parametrize("count", [65, 66])
def test_behind_damage_at_most_so_many_places_are_nothing(count: int) -> None:
    """The first of them is the damaged place itself."""
    made = Made()
    stored = made.stored() + (MAGIC + (100).to_bytes(4, "little") + b"x" * 56) * count + bytes(100)
    if count == 65:
        assert shown(stored) == made.plain() + b"\xff"
    else:
        refused(stored, "another follows it")


def test_a_sealed_manifest_is_at_most_as_long_as_its_file() -> None:
    assert ManifestSealing().plain_size(1234) == 1234


def test_frames_that_open_are_not_counted_as_tries() -> None:
    """A manifest has more edits than tries are left behind damage."""
    made = Made(*(b"edit %03d" % number for number in range(80)))
    assert at_rest(made.stored()).read_salvaged() == made.plain()


def test_the_bytes_that_are_tried_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made()
    unit = MAGIC + (100).to_bytes(4, "little") + b"x" * 104
    stored, kept = behind(made, lambda _: unit * 3)
    # Behind the damaged place two of them are tried, then the frame that opens.
    for most, is_found in ((300, True), (299, False)):
        monkeypatch.setattr(sealed, "_TRIED_BYTES_MAX", most)
        expected = made.plain() + (kept if is_found else b"")
        assert at_rest(stored).read_salvaged() == expected
    alone = stored[: -FRAME_MIN - 8]
    for most, is_tried in ((200, True), (199, False)):
        monkeypatch.setattr(sealed, "_TRIED_BYTES_MAX", most)
        if is_tried:
            assert shown(alone) == made.plain() + b"\xff"
        else:
            refused(alone, "another follows it")


def test_what_claims_more_than_the_file_has_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made()
    monkeypatch.setattr(sealed, "_TRIED_BYTES_MAX", 0)
    # The first one is where the damage is; of those behind it the next one has 120 bytes.
    for claimed in (121, 185, 1 << 20):
        stored = made.stored() + (MAGIC + claimed.to_bytes(4, "little") + b"x" * 56) * 3
        assert shown(stored) == made.plain() + b"\xff"
        assert at_rest(stored).read_salvaged() == made.plain()
    # Nor what is shorter than any frame.
    for size in (1, FRAME_MIN - 9):
        unit = (MAGIC + size.to_bytes(4, "little")).ljust(96, b"x")
        stored, kept = behind(made, lambda _, unit=unit: unit * 3)
        assert at_rest(stored).read_salvaged() == made.plain() + kept
        assert shown(made.stored() + unit * 3) == made.plain() + b"\xff"


def test_frames_are_found_beyond_the_window_that_is_read_at_once() -> None:
    made = Made()
    window = 1 << 18
    for extra in (-8, 0, 8):
        stored, kept = behind(made, lambda at, extra=extra: b"x" * (window + extra - at % 8))
        refused(stored, "another follows it")
        assert at_rest(stored).read_salvaged() == made.plain() + kept


def test_a_long_frame_is_read_whole() -> None:
    made = Made(b"y" * (1 << 18), b"z" * ((1 << 18) + 8), b"the end!")
    assert shown(made.stored()) == made.plain()
    assert at_rest(made.stored()).read_salvaged() == made.plain()


def test_a_magic_that_is_not_at_the_alignment_is_no_frame() -> None:
    made = Made()
    at = len(made.stored()) + 4
    stored = made.stored() + b"????" + frame(at, bytes(16), made.under_way.size(), 8, b"x" * 8)
    assert shown(stored) == made.plain() + b"\xff"
    assert at_rest(stored).read_salvaged() == made.plain()


class Shrunk:
    """A file that was cut after somebody had asked for its size."""

    name = PATH

    def __init__(self, stored: bytes, size: int) -> None:
        self._stored = stored
        self._size = size

    def read_at(self, offset: int, count: int) -> bytes:
        return self._stored[offset : offset + count]

    def size(self) -> int:
        return self._size


@pytest.mark.parametrize("left", range(4, 9))
def test_a_file_that_is_cut_while_it_is_read_shows_what_is_left(left: int) -> None:
    """The magic of a frame may be the last that is there, or a part of the size behind it."""
    made = Made(b"second !")
    start, _ = made.places[1]
    file: Any = Shrunk(made.stored()[: start + left], len(made.stored()))
    assert ManifestAtRest(file, cipher()).read_at(0, 1 << 30) == made.parts[0] + b"\xff"
    assert ManifestAtRest(file, cipher()).read_salvaged() == made.parts[0]
