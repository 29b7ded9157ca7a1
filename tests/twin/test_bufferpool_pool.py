"""Both twins of `holdfast.bufferpool._pool` keep the same pages in the same order, within the
budget.
"""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.bufferpool import _pool_c, _pool_py

TWINS = [pytest.param(_pool_c, id="c"), pytest.param(_pool_py, id="py")]
OVERHEAD = _pool_py.PAGE_OVERHEAD_BYTES
twins = pytest.mark.parametrize("twin", TWINS)


def charge_of(count: int, size: int = 1000) -> int:
    return count * (size + OVERHEAD)


def filled(twin: Any, frames: int, keys: range) -> Any:
    """A pool with room for `frames` pages of 1000 bytes, after putting one page for each key."""
    pool = twin.BufferPool(charge_of(frames))
    for key in keys:
        pool.put(1, key, twin.Page(bytes(1000), 1))
    return pool


@twins
def test_a_page_is_read_only_bytes_with_a_type(twin: Any) -> None:
    page = twin.Page(bytearray(b"hello"), 3)
    view = memoryview(page)
    assert (bytes(page), len(page), page.page_type, view.readonly, bytes(view[1:3])) == (
        b"hello",
        5,
        3,
        True,
        b"el",
    )
    assert bytes(twin.Page(b"", 1)) == b""
    assert repr(page) == "<Page type 3, 5 bytes>"


@twins
def test_a_page_needs_bytes(twin: Any) -> None:
    for body in (None, "text", 5):
        with pytest.raises(TypeError):
            twin.Page(body, 1)


@twins
def test_a_page_outlives_what_it_was_made_of(twin: Any) -> None:
    source = bytearray(b"before")
    page = twin.Page(source, 1)
    source[:] = b"after!"
    assert bytes(page) == b"before"


@twins
def test_get_counts_hits_and_misses(twin: Any) -> None:
    pool = filled(twin, 10, range(2))
    page = pool.get(1, 0)
    assert bytes(page) == bytes(1000)
    assert pool.get(1, 0) is page
    assert pool.get(1, 5) is None
    assert pool.get(2, 0) is None
    assert (pool.hits, pool.misses, pool.page_count, pool.used_bytes) == (2, 2, 2, charge_of(2))


@twins
def test_pages_seen_once_leave_first_in_first_out(twin: Any) -> None:
    pool = filled(twin, 10, range(14))
    assert pool.keys() == [(1, key) for key in range(4, 14)]
    assert pool.evictions == 4
    assert pool.used_bytes <= pool.capacity_bytes


@twins
def test_a_scan_does_not_push_out_hot_pages(twin: Any) -> None:
    pool = filled(twin, 100, range(80))
    for _ in range(2):
        for key in range(80):
            assert pool.get(1, key) is not None
    for key in range(1000, 11000):
        assert pool.get(2, key) is None
        pool.put(2, key, twin.Page(bytes(1000), 1))
    assert sum(pool.get(1, key) is not None for key in range(80)) == 80


@twins
def test_a_ghost_comes_back_into_the_main_queue(twin: Any) -> None:
    pool = filled(twin, 10, range(12))
    assert (1, 0) not in pool.keys()
    pool.put(1, 0, twin.Page(bytes(1000), 1))
    assert pool.keys()[-1] == (1, 0)
    for key in range(100, 200):
        pool.put(1, key, twin.Page(bytes(1000), 1))
    assert (1, 0) in pool.keys()


@twins
def test_pinned_pages_stay_and_may_exceed_the_capacity(twin: Any) -> None:
    pool = twin.BufferPool(charge_of(4))
    for key in range(6):
        pool.put(7, key, twin.Page(bytes(1000), 3), pinned=True)
    assert (pool.page_count, pool.pinned_bytes, pool.used_bytes) == (6, charge_of(6), charge_of(6))
    pool.put(8, 0, twin.Page(bytes(10), 1))
    assert pool.get(8, 0) is None
    pool.drop_file(7)
    assert (pool.page_count, pool.pinned_bytes, pool.used_bytes) == (0, 0, 0)


@twins
def test_drop_file_drops_frames_and_ghosts_of_that_file_only(twin: Any) -> None:
    pool = twin.BufferPool(charge_of(10))
    for key in range(30):
        pool.put(key % 2, key, twin.Page(bytes(1000), 1))
    pool.put(1 + 1024, 5, twin.Page(b"same bucket", 1))
    left = [key for key in pool.keys() if key[0] != 1]
    pool.drop_file(1)
    assert pool.keys() == left
    pool.put(1, 3, twin.Page(bytes(1000), 1))
    assert pool.keys()[-1] == (1, 3), "a dropped ghost does not make its page hot"


@twins
def test_put_of_a_present_key_replaces_it(twin: Any) -> None:
    pool = twin.BufferPool(charge_of(10))
    pool.put(1, 1, twin.Page(bytes(1000), 1))
    second = twin.Page(bytes(500), 1)
    pool.put(1, 1, second)
    pool.put(1, 1, second)
    assert pool.get(1, 1) is second
    assert (pool.page_count, pool.used_bytes, pool.evictions) == (1, charge_of(1, 500), 0)
    pool.put(1, 1, second, pinned=True)
    assert pool.pinned_bytes == charge_of(1, 500)
    pool.put(1, 1, twin.Page(b"", 1))
    assert (pool.pinned_bytes, pool.used_bytes) == (0, charge_of(1, 500) + charge_of(1, 0))
    del second
    assert pool.used_bytes == charge_of(1, 0)


@twins
def test_a_page_has_one_key_in_one_pool(twin: Any) -> None:
    pool, other = twin.BufferPool(charge_of(10)), twin.BufferPool(charge_of(10))
    page = twin.Page(b"x", 1)
    pool.put(1, 1, page)
    for wrong, key in ((pool, (1, 2)), (other, (1, 1))):
        with pytest.raises(ValueError, match="one pool"):
            wrong.put(*key, page)
    assert (pool.keys(), other.keys()) == ([(1, 1)], [])


@twins
def test_held_pages_are_counted_until_they_are_freed(twin: Any) -> None:
    pool = filled(twin, 10, range(10))
    held = [pool.get(1, key) for key in range(5)]
    for key in range(10, 40):
        pool.put(1, key, twin.Page(bytes(1000), 1))
    assert pool.used_bytes == pool.capacity_bytes
    assert pool.page_count == 5
    assert bytes(held[0]) == bytes(1000)
    held.clear()
    gc.collect()
    assert pool.used_bytes == charge_of(5)


@twins
def test_a_memoryview_holds_its_page(twin: Any) -> None:
    pool = filled(twin, 10, range(1))
    view = memoryview(pool.get(1, 0))
    pool.drop_file(1)
    assert (pool.page_count, pool.used_bytes, len(view)) == (0, charge_of(1), 1000)
    view.release()
    gc.collect()
    assert pool.used_bytes == 0


@twins
def test_pages_outlive_their_pool(twin: Any) -> None:
    pool = filled(twin, 10, range(3))
    page = pool.get(1, 2)
    del pool
    gc.collect()
    assert bytes(page) == bytes(1000)


@twins
def test_reservations_shrink_the_pages_at_once(twin: Any) -> None:
    pool = filled(twin, 10, range(10))
    pool.reserve(charge_of(7))
    assert (pool.page_count, pool.used_bytes, pool.reserved_bytes) == (
        3,
        charge_of(3),
        charge_of(7),
    )
    pool.reserve(charge_of(100))
    assert pool.page_count == 0
    pool.reserve(-charge_of(107))
    assert pool.reserved_bytes == 0
    with pytest.raises(ValueError, match="reservation"):
        pool.reserve(-1)
    with pytest.raises(ValueError, match="reservation"):
        pool.reserve(1 << 63)
    assert pool.reserved_bytes == 0


@twins
def test_resize_shrinks_the_pages_at_once(twin: Any) -> None:
    pool = filled(twin, 10, range(10))
    pool.resize(charge_of(2))
    assert (pool.page_count, pool.capacity_bytes) == (2, charge_of(2))
    pool.resize(0)
    pool.put(1, 1, twin.Page(b"", 1))
    assert pool.page_count == 0
    with pytest.raises(ValueError, match="capacity"):
        pool.resize(-1)
    with pytest.raises(ValueError, match="capacity"):
        twin.BufferPool(1 << 63)


@twins
def test_a_page_too_large_for_the_pool_evicts_nothing(twin: Any) -> None:
    pool = filled(twin, 10, range(10))
    pool.put(2, 0, twin.Page(bytes(3000), 1))
    assert (pool.page_count, pool.evictions, pool.get(2, 0)) == (10, 0, None)


@twins
def test_numbers_are_unsigned_64_bit(twin: Any) -> None:
    pool = twin.BufferPool(charge_of(10))
    top = 2**64 - 1
    pool.put(top, top, twin.Page(b"x", 1))
    assert pool.keys() == [(top, top)]
    for key in ((-1, 0), (0, 2**64)):
        with pytest.raises(OverflowError):
            pool.get(*key)
        with pytest.raises(OverflowError):
            pool.put(*key, twin.Page(b"x", 1))
    with pytest.raises(TypeError):
        pool.put(0, 0, b"not a page")


def state(pool: Any) -> tuple[Any, ...]:
    return (
        pool.keys(),
        pool.hits,
        pool.misses,
        pool.evictions,
        pool.used_bytes,
        pool.pinned_bytes,
        pool.reserved_bytes,
        pool.capacity_bytes,
        pool.page_count,
    )


files = st.sampled_from([0, 1, 2, 1025])
offsets = st.integers(0, 30)
steps = st.one_of(
    st.tuples(st.just("get"), files, offsets),
    st.tuples(st.just("hold"), files, offsets),
    st.tuples(st.just("put"), files, offsets, st.integers(0, 300), st.just(False)),
    st.tuples(
        st.just("put"), files, offsets, st.integers(0, 300), st.integers(0, 9).map(lambda n: n == 0)
    ),
    st.tuples(st.just("release"), st.integers(0, 5)),
    st.tuples(st.just("drop"), files),
    st.tuples(st.just("reserve"), st.integers(-2000, 2000)),
    st.tuples(st.just("resize"), st.integers(0, 8000)),
)


def apply(twin: Any, pool: Any, held: list[Any], step: tuple[Any, ...]) -> Any:
    """Do one step and return what it answered."""
    name, *rest = step
    if name == "get":
        page = pool.get(*rest)
        return None if page is None else bytes(page)
    if name == "hold":
        held.append(pool.get(*rest))
    elif name == "put":
        file, offset, size, pinned = rest
        pool.put(file, offset, twin.Page(bytes([offset]) * size, 1), pinned)
    elif name == "release":
        del held[: rest[0]]
    elif name == "drop":
        pool.drop_file(rest[0])
    elif name == "reserve":
        try:
            pool.reserve(rest[0])
        except ValueError as error:
            return str(error)
    else:
        pool.resize(rest[0])
    return None


@given(st.integers(0, 8000), st.lists(steps, max_size=200))
def test_twins_keep_the_same_pages_after_every_step(
    capacity: int, trace: list[tuple[Any, ...]]
) -> None:
    pools = [(twin, twin.BufferPool(capacity), []) for twin in (_pool_c, _pool_py)]
    for step in trace:
        answers = [apply(twin, pool, held, step) for twin, pool, held in pools]
        assert answers[0] == answers[1]
        assert state(pools[0][1]) == state(pools[1][1])


@pytest.mark.parametrize("seed", range(3))
def test_twins_keep_the_same_pages_over_long_skewed_traces(seed: int) -> None:
    """Thousands of keys in a skewed order with scans, drops and reservations; the tables of the
    compiled twin grow.
    """
    choose = random.Random(seed)
    pools = [(twin, twin.BufferPool(charge_of(400, 500))) for twin in (_pool_c, _pool_py)]
    for step in range(30000):
        roll = choose.random()
        file, offset = choose.randrange(4), int(choose.paretovariate(0.4)) % 2000
        size = choose.randrange(1000)
        for twin, pool in pools:
            if roll < 0.9:
                if pool.get(file, offset) is None:
                    pool.put(file, offset, twin.Page(bytes(size), 1), roll < 0.001)
            elif roll < 0.998:
                pool.put(9, step, twin.Page(bytes(size), 1))
            elif roll < 0.999:
                pool.drop_file(file)
            else:
                pool.reserve(size * 100 if pool.reserved_bytes == 0 else -pool.reserved_bytes)
        if step % 50 == 0:
            assert state(pools[0][1]) == state(pools[1][1])
            assert pools[0][1].used_bytes - pools[0][1].pinned_bytes <= pools[0][1].capacity_bytes
    assert pools[0][1].hits > 1000


@twins
def test_a_page_is_not_kept_when_evicting_gives_no_room(twin: Any) -> None:
    """Pages that somebody holds use their memory after they were evicted, too."""
    pool = filled(twin, 10, range(9))
    held = [pool.get(1, key) for key in range(9)]
    assert None not in held
    pool.put(1, 99, twin.Page(bytes(2000), 1))
    assert pool.get(1, 99) is None
    assert pool.used_bytes <= charge_of(10)
    del held
    pool.put(1, 99, twin.Page(bytes(2000), 1))
    assert pool.get(1, 99) is not None
