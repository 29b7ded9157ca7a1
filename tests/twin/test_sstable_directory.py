"""Both twins of `holdfast.sstable._directory` find in a page what a walk through it finds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import PURE, SEQ_MAX, CorruptionError, pack_trailer
from holdfast.bufferpool import Page
from holdfast.sstable import PageType, _directory_c, _directory_py
from tests.twin.test_sstable_page import Stored, encode_page, in_order

# Compiled kernels take compiled pages only, so in plain mode the plain twin is alone.
MODULES = (_directory_py,) if PURE else (_directory_c, _directory_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

NEWEST = (1 << 64) - 1


def walked_entry(entries: list[Stored], key: bytes, trailer: int) -> tuple[int, bytes] | None:
    return next(((t, value) for k, t, value in entries if k == key and t <= trailer), None)


def walked_separator(entries: list[Stored], key: bytes, trailer: int) -> int:
    before = [1 for k, t, _ in entries if (k, -t) < (key, -trailer)]
    return len(before)


def agrees(twin: Any, entries: list[Stored], sought: list[tuple[bytes, int]]) -> None:
    for interval in (1, 16):
        page = Page(encode_page(entries, interval), PageType.DATA)
        index = Page(encode_page(entries, interval, share=interval != 1), PageType.INDEX)
        for key, trailer in sought:
            found = twin.find_entry(page, "f", 0, key, trailer)
            assert found == walked_entry(entries, key, trailer), (key, trailer)
            at = twin.find_separator(index, "f", 0, key, trailer)
            assert at == walked_separator(entries, key, trailer), (key, trailer)


def around(entries: list[Stored]) -> list[tuple[bytes, int]]:
    """Every entry, and what lies right before and behind it."""
    sought = []
    for key, trailer, _ in entries:
        for near in (key, key[:-1], key + b"\0", key + b"x", b"\0" + key, key[:-1] + b"\xff"):
            sought += [(near, NEWEST), (near, trailer), (near, max(trailer - 1, 0)), (near, 0)]
    return sought


keys = st.one_of(
    st.binary(max_size=3),
    st.lists(st.sampled_from([b"a", b"\0", b"\xff", b"common/prefix/"]), max_size=6).map(b"".join),
)
stored = st.tuples(keys, st.integers(0, 3).map(lambda seq: pack_trailer(seq, 1)), st.binary())


@twins
@settings(max_examples=30)
@given(entries=st.lists(stored, min_size=1, max_size=20), others=st.lists(keys, max_size=5))
def test_any_page(twin: Any, entries: list[Stored], others: list[bytes]) -> None:
    ordered = in_order(entries)
    agrees(twin, ordered, around(ordered) + [(key, NEWEST) for key in others])


@twins
@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"%016d" % n,
        lambda n: b"user/%d/name" % n,
        lambda n: b"http://example.test/a/common/prefix/%08d/and/a/suffix/%d" % (n // 7, n),
        lambda n: b"k" * (n % 200) + b"%05d" % n,
        lambda n: b"k" * (250 + n % 20),
        lambda n: n.to_bytes(2, "big"),
        lambda n: b"\0" * n,
    ],
)
def test_keys_of_all_shapes(twin: Any, make: Any, rng: random.Random) -> None:
    entries = in_order([(make(n), pack_trailer(n + 1, 1), b"v%d" % n) for n in range(300)])
    agrees(twin, entries, rng.sample(around(entries), 100))


@twins
def test_many_versions_of_one_key(twin: Any) -> None:
    """The newest is in the directory; the others are found by a search."""
    entries = [(b"key", pack_trailer(seq, 1), b"%d" % seq) for seq in range(900, 0, -1)]
    entries = [(b"a", 1 << 8, b""), *entries, (b"key2", 1 << 8, b"")]
    sought = [(b"key", pack_trailer(seq, 0xFF)) for seq in (0, 1, 450, 899, 900, SEQ_MAX)]
    agrees(twin, entries, [*sought, (b"key2", NEWEST), (b"a", NEWEST), (b"ke", NEWEST)])


@twins
def test_a_page_too_large_for_a_directory(twin: Any) -> None:
    entries: list[Stored] = [(b"%04d" % n, 1 << 8, b"v" * 3000) for n in range(30)]
    agrees(twin, entries, around(entries))


@twins
def test_a_page_just_small_enough(twin: Any, rng: random.Random) -> None:
    """The last entries start near the greatest number of 16 bits."""
    entries: list[Stored] = [(b"%04d" % n, 1 << 8, b"") for n in range(3700)]
    size = len(encode_page(entries, 16))
    assert size < 65536
    entries.insert(0, (b"", 1 << 8, b"v" * (65536 - size - 40)))
    agrees(twin, entries, [*rng.sample(around(entries), 10), *around(entries[-1:])])


@twins
def test_a_damaged_page_is_refused(twin: Any) -> None:
    page = Page(b"\xff\xff\xff\xff", PageType.DATA)
    with pytest.raises(CorruptionError):
        twin.find_entry(page, "f", 7, b"k", 1)
    with pytest.raises(CorruptionError):
        twin.find_separator(page, "f", 7, b"k", 1)


@twins
def test_an_empty_root_has_no_separator(twin: Any) -> None:
    page = Page(encode_page([]), PageType.INDEX_ROOT)
    assert twin.find_separator(page, "f", 0, b"k", NEWEST) == 0
