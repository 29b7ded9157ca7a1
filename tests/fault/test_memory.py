"""An allocation fails: the call raises MemoryError or succeeds, and nothing else happens.

A library in front of the system's `malloc` fails one call of it: one of the kernels, or one of the
whole process, whose Python then asks `malloc` for everything. The database works on or says that it
is poisoned, another open finds what was acknowledged, and the process does not crash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.base import PURE
from tests.process.scripts import environment

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static long failing, count;
static int kernels_only;

void fail_allocation(long nth, int kernels) {
    kernels_only = kernels;
    count = 0;
    __atomic_store_n(&failing, nth, __ATOMIC_SEQ_CST);
}

long count_allocations(void) {
    __atomic_store_n(&failing, 0, __ATOMIC_SEQ_CST);
    return count;
}

static int fails(void *caller) {
    Dl_info info;
    long nth = __atomic_load_n(&failing, __ATOMIC_SEQ_CST);
    if (nth == 0) return 0;
    if (kernels_only && !(dladdr(caller, &info) && info.dli_fname
                          && strstr(info.dli_fname, "/holdfast/"))) return 0;
    if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) != nth) return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}
void *calloc(size_t many, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(many, size);
}
void *realloc(void *old, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
"""

KERNEL_CALLS = [
    "put", "put none", "put large", "batch", "delete range", "get", "scan", "reverse", "flush",
    "create", "close", "open",
]  # fmt: skip
PROCESS_CALLS = {
    "put": 2,
    "batch": 2,
    "delete range": 2,
    "get": 2,
    "create": 13,
    "scan": 29,
    "view": 1,
}
"""With how many allocations lie between two that fail. Others reach threads and libraries, which do
not survive it or call it something else."""

pytestmark = [
    pytest.mark.skipif(PURE, reason="the plain twins allocate nothing themselves"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc"),
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer has its own malloc"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failing")
    source, target = folder / "failing.c", folder / "failing.so"
    source.write_text(SOURCE)
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", target, source, "-ldl"]
    subprocess.run(command, check=True)
    return target


def run(library: Path, folder: Path, name: str, *, kernels: bool, stride: int) -> tuple[int, int]:
    """Return how many allocations failed, and how many of them poisoned."""
    words = [sys.executable, "-m", "tests.fault.failing_memory", folder, name, int(kernels), stride]
    # Memory that is free is overwritten, so that its use shows.
    preloaded = {
        "LD_PRELOAD": str(library),
        "PYTHONMALLOC": "malloc",
        "GLIBC_TUNABLES": "glibc.malloc.perturb=165",
    }
    done = subprocess.run(
        [str(word) for word in words],
        env=environment() | preloaded,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-4000:])
    count, poisonings = map(int, done.stdout.split())
    return count, poisonings


@pytest.mark.parametrize("name", KERNEL_CALLS)
def test_each_allocation_of_a_kernel_fails(library: Path, tmp_path: Path, name: str) -> None:
    stride = {"scan": 9, "reverse": 11, "open": 9, "flush": 3, "close": 5}.get(name, 1)
    count, poisonings = run(library, tmp_path, name, kernels=True, stride=stride)
    # What fits into memory that is there needs none.
    assert count > 0 or name == "put none"
    if name not in ("flush", "close"):
        assert poisonings == 0


@pytest.mark.parametrize("name", PROCESS_CALLS)
def test_each_allocation_of_the_process_fails(library: Path, tmp_path: Path, name: str) -> None:
    count, poisonings = run(library, tmp_path, name, kernels=False, stride=PROCESS_CALLS[name])
    assert count > 5
    assert poisonings == 0


@pytest.mark.deep
@pytest.mark.parametrize("name", ["scan", "reverse", "open", "flush", "close", "compact"])
def test_every_allocation_of_a_kernel_fails(library: Path, tmp_path: Path, name: str) -> None:
    count, _ = run(library, tmp_path, name, kernels=True, stride=1)
    assert count > 10
