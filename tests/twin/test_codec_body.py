"""Both twins of `holdfast.codec._body`; what the compiled one gives to pages and takes back."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random
from threading import Thread
from typing import Any

import pytest

from holdfast.bufferpool import PAGE_OVERHEAD_BYTES, _pool_c, _pool_py
from holdfast.codec import _body_c, _body_py

PAGE = 16384

HOLES = """
import resource
from holdfast.bufferpool._pool_c import Page
from holdfast.codec._body_c import release_bodies

def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def body(number):
    return bytes([number % 251]) * SIZE

pages = [Page(body(number), 1) for number in range(4000)]
full = resident()
del pages[::2]
print(full - resident())
kept, left = release_bodies(), resident()
assert kept <= 512 << 10
assert release_bodies() == 0
pages += [Page(body(number), 1) for number in range(2000)]
print(resident() - full)
assert [bytes(page) for page in pages] == [
    body(number) for number in [*range(1, 4000, 2), *range(2000)]
]
"""

FORKS = """
import os
import threading
from holdfast.bufferpool._pool_c import Page

bodies = [bytes([number]) * 16384 for number in range(8)]
done = threading.Event()

def churn():
    while not done.is_set():
        kept = [Page(body, 1) for body in bodies]
        assert [bytes(page) for page in kept] == bodies

threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads:
    thread.start()
mine = [Page(body, 1) for body in bodies]
codes = []
for _ in range(40):
    child = os.fork()
    if child == 0:
        mine.clear()
        mine.extend(Page(body, 1) for body in bodies)
        os._exit([bytes(page) for page in mine] != bodies)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
for thread in threads:
    thread.join()
assert codes == [0] * 40, codes
"""


def run(script: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize("twin", [_body_c, _body_py], ids=["c", "py"])
def test_what_is_kept_of_freed_bodies_is_given_back_once(twin: Any) -> None:
    del_me = [_pool_c.Page(bytes(PAGE), 1) for _ in range(8)]
    del del_me
    assert twin.release_bodies() >= 0
    assert twin.release_bodies() == 0


@pytest.mark.parametrize("twin", [_body_c, _body_py], ids=["c", "py"])
@pytest.mark.parametrize(
    ("size", "room"),
    [
        (0, 0), (1, 1), (8191, 8191), (8192, 8192), (8193, 8193), (10_751, 10_751),
        (10_752, 12_288), (12_288, 12_288), (14_335, 14_335), (14_336, 16_384), (PAGE, PAGE),
        (PAGE + 1, PAGE + 1), (130_000, 131_072), (131_072, 131_072), (131_073, 131_073),
        (1 << 30, 1 << 30),
    ],
)  # fmt: skip
def test_a_body_takes_a_slot_that_it_nearly_fills(twin: Any, size: int, room: int) -> None:
    assert twin.body_room(size) == room


def test_the_pool_charges_the_whole_slot() -> None:
    for pools in (_pool_c, _pool_py):
        pool = pools.BufferPool(1 << 20)
        page = pools.Page(bytes(PAGE - 100), 1)
        pool.put(1, 0, page)
        assert pool.used_bytes == PAGE + PAGE_OVERHEAD_BYTES
        pool.drop_file(1)
        assert pool.used_bytes == PAGE + PAGE_OVERHEAD_BYTES
        del page
        assert pool.used_bytes == 0


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.environ.get("HOLDFAST_BUILD") == "asan",
    reason="elsewhere, and for sanitizers, bodies are malloc's",
)
@pytest.mark.parametrize("size", [PAGE, PAGE - 100, 3 * PAGE])
def test_the_memory_of_every_other_page_is_given_back_when_it_goes(size: int) -> None:
    """A general allocator would keep all of it, for others of the same size."""
    freed, grown = run(HOLES.replace("SIZE", str(size)))
    assert freed > 0.8 * 2000 * size
    assert grown < 0.1 * 2000 * size


@pytest.mark.parametrize("size", [0, 1, 4096, 8191, 8192, 8193, 12288, 131072, 131073, 1 << 20])
def test_bodies_of_all_sizes_are_apart(size: int) -> None:
    pages = [_pool_c.Page(bytes([number]) * size, 1) for number in range(20)]
    del pages[::3]
    pages += [_pool_c.Page(bytes([100 + number]) * size, 1) for number in range(20)]
    left = [number for number in range(20) if number % 3]
    assert [bytes(page) for page in pages] == [
        bytes([number]) * size for number in left + list(range(100, 120))
    ]


def test_threads_never_share_a_body() -> None:
    failures: list[str] = []

    def churn(seed: int) -> None:
        source, held = Random(seed), []
        for turn in range(1500):
            mark = seed * 16 + turn % 16
            size = source.choice((9000, PAGE, PAGE, 40_000))
            held.append((_pool_c.Page(bytes([mark]) * size, 1), mark, size))
            if len(held) > 40:
                page, mark, size = held.pop(source.randrange(len(held)))
                if bytes(page) != bytes([mark]) * size:
                    failures.append(f"seed {seed}, turn {turn}")

    threads = [Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_a_fork_frees_and_makes_bodies() -> None:
    """Whatever the other threads of its parent did at that moment."""
    run(FORKS)
