"""Both twins of `holdfast.env._memory`; the compiled one gives back what the allocator kept."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import pytest

from holdfast.env import _memory_c, _memory_py

GLIBC = platform.libc_ver()[0] == "glibc"

CHILD = """
import resource
from holdfast.env._memory_c import release_memory

def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

kept = [bytes([n % 251]) * 16384 for n in range(4000)]
del kept[:-1]
before = resident()
assert release_memory() is True
print(before - resident())
"""
"""The last block lies above all that was freed, which therefore cannot be given back by itself."""


@pytest.mark.parametrize("twin", [_memory_c, _memory_py], ids=["c", "py"])
def test_it_says_whether_the_allocator_was_asked(twin: Any) -> None:
    assert twin.release_memory() is (GLIBC and twin is _memory_c)


@pytest.mark.skipif(not GLIBC, reason="the allocator of another C library cannot be asked")
def test_what_was_freed_below_something_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 40 << 20
