"""An allocation fails: the call raises MemoryError or succeeds, and nothing else happens.

A library in front of the system's `malloc` fails one call of it: one of the kernels, or one of the
whole process, whose Python then asks `malloc` for everything. The database works on, a kill or a
close loses nothing that was acknowledged, nobody waits for ever, and the process does not crash.
`./dev test -m deep tests/fault/test_memory.py` fails every allocation; the normal run some of them.
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
#include <execinfo.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static long failing, count;
static int kernels_only;
static char *spared;

/* Let nothing fail for the function at this address. */
void spare_function(void *address) {
    void *frames[1];
    backtrace(frames, 1); /* Its first call asks for memory. */
    spared = address;
}

static int is_spared(void) {
    void *frames[8];
    int many = backtrace(frames, 8);
    for (int place = 0; place < many; place++) {
        char *returns_to = frames[place];
        if (spared && returns_to > spared && returns_to < spared + 512) return 1;
    }
    return 0;
}

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
    if (is_spared()) return 0;
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

/* Nothing here asks what a disk keeps. */
int fsync(int descriptor) { (void)descriptor; return 0; }
int fdatasync(int descriptor) { (void)descriptor; return 0; }
"""

STRIDES = {
    "put": 9,
    "put interval": 17,
    "put none": 1,
    "put large": 29,
    "put large interval": 29,
    "put large none": 1,
    "batch": 17,
    "submit": 7,
    "ingest": 211,
    "merge": 31,
    "merge tables": 613,
    "add": 13,
    "del": 61,
    "popitem": 61,
    "delete range": 29,
    "get": 9,
    "get many": 23,
    "scan": 151,
    "reverse": 151,
    "snapshot": 23,
    "flush": 307,
    "compact": 613,
    "create": 97,
    "drop": 61,
    "transaction": 97,
    "transaction none": 61,
    "close": 307,
    "open new": 211,
    "open": 97,
    "open killed": 613,
}
"""Every call, and how many allocations lie between two that fail in the normal run."""

KERNEL_STRIDES = {
    "batch": 2,
    "ingest": 7,
    "merge": 3,
    "merge tables": 53,
    "delete range": 2,
    "transaction": 2,
    "transaction none": 2,
    "scan": 53,
    "flush": 17,
    "open killed": 53,
}

KERNEL_NONE = {"put", "add", "drop"}
"""Calls whose kernels find room in what they have."""

HANG_SECONDS = 240
DEEP_SECONDS = 3 * 3600

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


def printed_by(library: Path, module: list[str], *, seconds: int) -> str:
    """Run a module whose allocations can fail, and return what it printed."""
    # Memory that is free is overwritten, so that its use shows.
    preloaded = {
        "LD_PRELOAD": str(library),
        "PYTHONMALLOC": "malloc",
        "GLIBC_TUNABLES": "glibc.malloc.perturb=165",
    }
    done = subprocess.run(
        [sys.executable, "-m", *module],
        env=environment() | preloaded,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    shown = done.stdout.replace("\\n", "\n")
    assert done.returncode == 0, (done.returncode, shown, done.stderr[-4000:])
    return done.stdout


def run(library: Path, folder: Path, calls: list[str], *, kernels: bool, seconds: int) -> None:
    """Let allocations fail in calls, each given as name, first and stride.

    Nothing poisons: no write to the disk is in doubt when memory runs out before or after it.
    """
    words = ["tests.fault.failing_memory", folder, int(kernels), *calls]
    printed = printed_by(library, [str(word) for word in words], seconds=seconds)
    lines = printed.splitlines()
    assert len(lines) == len(calls), printed
    for line in lines:
        name, _, count = line.rpartition(": ")
        # What fits into memory that is there needs none.
        if not name.endswith("none"):
            assert (int(count) == 0) == (kernels and name in KERNEL_NONE), line


def test_allocations_of_the_process_fail(library: Path, tmp_path: Path) -> None:
    """A sample of what `pytest -m deep` does for every allocation."""
    calls = [f"{name}:2:{stride}" for name, stride in STRIDES.items()]
    run(library, tmp_path, calls, kernels=False, seconds=HANG_SECONDS)


def test_allocations_of_the_kernels_fail(library: Path, tmp_path: Path) -> None:
    calls = [f"{name}:1:{stride}" for name, stride in KERNEL_STRIDES.items()]
    run(library, tmp_path, calls, kernels=True, seconds=HANG_SECONDS)


def test_no_entry_takes_the_place_of_one_for_which_a_page_was_closed(library: Path) -> None:
    """It would lie behind a separator that was made for the other one."""
    printed = printed_by(library, ["tests.fault.failing_builder"], seconds=HANG_SECONDS)
    assert int(printed) > 1


@pytest.mark.deep
@pytest.mark.parametrize("name", STRIDES)
def test_every_allocation_of_the_process_fails(library: Path, tmp_path: Path, name: str) -> None:
    run(library, tmp_path, [f"{name}:1:1"], kernels=False, seconds=DEEP_SECONDS)


@pytest.mark.deep
@pytest.mark.parametrize("name", STRIDES)
def test_every_allocation_of_a_kernel_fails(library: Path, tmp_path: Path, name: str) -> None:
    run(library, tmp_path, [f"{name}:1:1"], kernels=True, seconds=DEEP_SECONDS)
