"""How a cell of `holdfast bench` is measured: passes over operations, and the kernel's counters.

Each kind of work can be done in two ways: `plain` runs through it with one clock around all, which
gives the rate; `clocked` reads the clock around every operation, into an array made before, and
stops at a deadline, which gives the percentiles and, beside a busy thread, another rate.

What the kernel counts, for every engine alike:

- *bytes written*: `wchar` of /proc/self/io, what this process gave to calls that write. No engine
  here writes to its files through a map. What is removed before it reaches the disk counts.
- *bytes made dirty*: `write_bytes` less `cancelled_write_bytes` of the same file. A kernel with
  large folios counts a whole one, up to 1 MiB and more, for each small write into it that is
  synced, although the disk gets some blocks; so this is kept, and not shown.
- *bytes of the device*: sectors written to the disk under the folder, by whomever: the truth with
  the file system's own part, on a machine that does nothing else.
- *memory*: the peak of resident pages (VmHWM) while the work ran, less what was resident before,
  plus what opening the database took. Pages of files that are mapped count.
- *space*: the blocks of all files of the folder after the database was closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import mmap
import os
import threading
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.testing.bench_measure import peak_resident_bytes, resident_bytes
from holdfast.testing.versus_store import Row, Setup, Store

NEVER = 1 << 62
"""A deadline, in the clock's nanoseconds, that does not come."""
NANOSECONDS = 10**9
BLOCK_BYTES = 512
MADV_DONTNEED = 4


@dataclass(slots=True)
class Taken:
    """What a pass took."""

    units: int
    seconds: float
    cpu: float
    """CPU seconds of the process, all threads together."""


class Stopwatch:
    """Wall and CPU time from its making on."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def taken(self, units: int) -> Taken:
        """Return what it took until now."""
        wall, cpu = time.perf_counter(), time.process_time()
        return Taken(units, wall - self._wall, cpu - self._cpu)


class Work(ABC):
    """The operations of one pass over an open database."""

    count: int
    """How many latencies a clocked pass takes at most."""
    user_bytes: int = 0
    """Bytes of keys and values that a plain pass writes."""
    live_bytes: int = 0
    """Bytes of keys and values that the database holds after it; 0: not known."""

    def warm(self) -> None:
        """Do what is to come before the pass and is not measured."""
        return

    @abstractmethod
    def plain(self) -> Taken:
        """Do all operations with one clock around them."""

    @abstractmethod
    def clocked(self, latencies: array[int], until: int) -> Taken:
        """Do operations with a clock around each, in nanoseconds, until the clock says `until`."""


class Calls(Work):
    """One call an item, on one thread. `finish` ends the writing and is part of the work."""

    def __init__(
        self,
        call: Callable[[Any], object],
        items: Sequence[Any],
        *,
        units_each: int = 1,
        warm: Sequence[Any] = (),
        finish: Callable[[], None] | None = None,
    ) -> None:
        self._call = call
        self._items = items
        self._units_each = units_each
        self._warm = warm
        self._finish = finish or (lambda: None)
        self.count = len(items)

    def warm(self) -> None:
        call = self._call
        for item in self._warm:
            call(item)

    def plain(self) -> Taken:
        call = self._call
        watch = Stopwatch()
        for item in self._items:
            call(item)
        self._finish()
        return watch.taken(self.count * self._units_each)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        call, clock, done = self._call, time.perf_counter_ns, 0
        watch = Stopwatch()
        for item in self._items:
            began = clock()
            call(item)
            ended = clock()
            latencies[done] = ended - began
            done += 1
            if ended > until:
                break
        self._finish()
        return watch.taken(done * self._units_each)


class Operations(Work):
    """A function and its arguments an operation, on one thread: mixed work, and puts."""

    def __init__(
        self,
        operations: Sequence[tuple[Callable[..., object], tuple[Any, ...]]],
        finish: Callable[[], None],
    ) -> None:
        self._operations = operations
        self._finish = finish
        self.count = len(operations)

    def plain(self) -> Taken:
        watch = Stopwatch()
        for call, arguments in self._operations:
            call(*arguments)
        self._finish()
        return watch.taken(self.count)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        clock, done = time.perf_counter_ns, 0
        watch = Stopwatch()
        for call, arguments in self._operations:
            began = clock()
            call(*arguments)
            ended = clock()
            latencies[done] = ended - began
            done += 1
            if ended > until:
                break
        self._finish()
        return watch.taken(done)


class Filling(Work):
    """Rows put one by one without a sync. The plain pass lets the store loop itself."""

    def __init__(self, store: Store, rows: Sequence[Row], live_bytes: int = 0) -> None:
        self._store = store
        self._rows = rows
        self.count = len(rows)
        self.user_bytes = bytes_of(rows)
        self.live_bytes = live_bytes or self.user_bytes

    def plain(self) -> Taken:
        watch = Stopwatch()
        self._store.fill(self._rows)
        self._store.finish()
        return watch.taken(self.count)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        put = self._store.putter()
        return Operations([(put, row) for row in self._rows], self._store.finish).clocked(
            latencies, until
        )


class Scanning(Work):
    """Rows taken one by one, or in lists: `each` says how many rows an item is."""

    def __init__(
        self, source: Callable[[], Iterable[Any]], count: int, each: Callable[[Any], int]
    ) -> None:
        self._source = source
        self._each = each
        self.count = count

    def plain(self) -> Taken:
        watch = Stopwatch()
        done = 0
        if self._each is one_row:
            for _key, _value in self._source():
                done += 1
        else:
            for item in self._source():
                done += len(item)
        return watch.taken(done)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        clock, each, units = time.perf_counter_ns, self._each, 0
        watch = Stopwatch()
        before = clock()
        for done, item in enumerate(self._source()):
            now = clock()
            latencies[done] = now - before
            units += each(item)
            if now > until:
                break
            before = clock()
        return watch.taken(units)


def one_row(_item: object) -> int:
    """Say that an item of a scan is one row."""
    return 1


class Cold(Work):
    """Gets with the page cache dropped before each few of them; only the gets are timed."""

    EACH = 20
    """Few enough that what the system reads ahead of them does not become the whole data."""

    def __init__(
        self, call: Callable[[bytes], object], keys: Sequence[bytes], drop: Callable[[], None]
    ) -> None:
        self._call = call
        self._keys = keys
        self._drop = drop
        self.count = len(keys)

    def plain(self) -> Taken:
        return self.clocked(array("q", bytes(8 * self.count)), NEVER)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        clock, call, done = time.perf_counter_ns, self._call, 0
        cpu, ended = 0.0, 0
        for at in range(0, self.count, self.EACH):
            self._drop()
            watch = Stopwatch()
            for key in self._keys[at : at + self.EACH]:
                began = clock()
                call(key)
                ended = clock()
                latencies[done] = ended - began
                done += 1
                if ended > until:
                    break
            cpu += watch.taken(0).cpu
            if ended > until:
                break
        return Taken(done, sum(latencies[:done]) / NANOSECONDS, cpu)


class Threads(Work):
    """Threads that put rows at the same time, each its own."""

    def __init__(self, call: Callable[[bytes, bytes], object], shares: list[list[Row]]) -> None:
        self._call = call
        self._shares = shares
        self.count = sum(map(len, shares))
        self.user_bytes = self.live_bytes = sum(map(bytes_of, shares))

    def plain(self) -> Taken:
        return self.clocked(array("q", bytes(8 * self.count)), NEVER)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        barrier = threading.Barrier(len(self._shares) + 1)
        failures: list[BaseException] = []
        done = [0] * len(self._shares)
        firsts = [0, *itertools.accumulate(map(len, self._shares))]

        def work(number: int) -> None:
            clock, call, first = time.perf_counter_ns, self._call, firsts[number]
            barrier.wait()
            try:
                for at, (key, value) in enumerate(self._shares[number]):
                    began = clock()
                    call(key, value)
                    ended = clock()
                    latencies[first + at] = ended - began
                    done[number] += 1
                    if ended > until:
                        break
            except BaseException as error:  # noqa: BLE001  the main thread raises it
                failures.append(error)
            barrier.wait()

        threads = [
            threading.Thread(target=work, args=(number,)) for number in range(len(self._shares))
        ]
        for thread in threads:
            thread.start()
        barrier.wait()
        watch = Stopwatch()
        barrier.wait()
        taken = watch.taken(sum(done))
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        compress(latencies, firsts, done)
        return taken


class Tasks(Work):
    """Tasks of asyncio that await one durable put after another."""

    def __init__(self, kind: type[Store], setup: Setup, shares: list[list[Row]]) -> None:
        self._kind = kind
        self._setup = setup
        self._shares = shares
        self.count = sum(map(len, shares))
        self.user_bytes = self.live_bytes = sum(map(bytes_of, shares))

    def plain(self) -> Taken:
        return self.clocked(array("q", bytes(8 * self.count)), NEVER)

    def clocked(self, latencies: array[int], until: int) -> Taken:
        return asyncio.run(self._run(latencies, until))

    async def _run(self, latencies: array[int], until: int) -> Taken:
        done = [0] * len(self._shares)
        firsts = [0, *itertools.accumulate(map(len, self._shares))]
        clock = time.perf_counter_ns

        async def work(put: Callable[[bytes, bytes], Awaitable[None]], number: int) -> None:
            first = firsts[number]
            for at, (key, value) in enumerate(self._shares[number]):
                began = clock()
                await put(key, value)
                ended = clock()
                latencies[first + at] = ended - began
                done[number] += 1
                if ended > until:
                    break

        async with self._kind.tasks(self._setup) as put:
            watch = Stopwatch()
            await asyncio.gather(*(work(put, number) for number in range(len(self._shares))))
            taken = watch.taken(sum(done))
        compress(latencies, firsts, done)
        return taken


class Beside(Work):
    """Work beside one thread that goes on writing until it ends."""

    def __init__(self, work: Work, background: Callable[[threading.Event], None]) -> None:
        self._work = work
        self._background = background
        self.count = work.count

    def warm(self) -> None:
        self._work.warm()

    def plain(self) -> Taken:
        with self._running():
            return self._work.plain()

    def clocked(self, latencies: array[int], until: int) -> Taken:
        with self._running():
            return self._work.clocked(latencies, until)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        stop = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self._background(stop)
            except BaseException as error:  # noqa: BLE001  the main thread raises it
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if failures:
            raise failures[0]


def compress(latencies: array[int], firsts: list[int], done: list[int]) -> None:
    """Move what was measured to the front: shares that ended early leave gaps."""
    at = 0
    for first, count in zip(firsts, done, strict=False):
        latencies[at : at + count] = latencies[first : first + count]
        at += count


def bytes_of(rows: Iterable[Row]) -> int:
    """Return the bytes of keys and values."""
    return sum(len(key) + len(value) for key, value in rows)


def percentile(ordered: Sequence[int], share: float) -> int:
    """Return the smallest of the sorted values that is not below `share` of them."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# -- the kernel's counters


@dataclass(frozen=True, slots=True)
class Written:
    """Counters of bytes; None: this system does not tell."""

    calls: int | None
    dirtied: int | None
    device: int | None

    def since(self, before: Written) -> Written:
        """Return what was added since `before`."""
        pairs = (
            (self.calls, before.calls),
            (self.dirtied, before.dirtied),
            (self.device, before.device),
        )
        return Written(*(None if a is None or b is None else a - b for a, b in pairs))


def written(folder: str) -> Written:
    """Return the counters now, of this process and of the disk under a folder."""
    counters = {}
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            for line in file:
                name, value = line.split(":")
                counters[name] = int(value)
    except OSError:
        return Written(None, None, _device_bytes(folder))
    dirtied = counters["write_bytes"] - counters["cancelled_write_bytes"]
    return Written(counters["wchar"], dirtied, _device_bytes(folder))


def _device_bytes(folder: str) -> int | None:
    """Return what was ever written to the disk under a folder; None when it is no block device."""
    device = os.stat(folder).st_dev
    path = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[6]) * BLOCK_BYTES
    except FileNotFoundError:
        return None


class Peak:
    """The most memory that the process held since its making."""

    def __init__(self) -> None:
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
            self._is_reset = True
        except OSError:
            self._is_reset = False

    def bytes(self) -> int:
        """Return it."""
        if self._is_reset:
            with open("/proc/self/status", encoding="ascii", errors="replace") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        return max(int(line.split()[1]) * 1024, resident_bytes())
        return peak_resident_bytes()


def files_of(folder: str) -> list[str]:
    """Return the paths of all files in and below a folder."""
    return [
        os.path.join(where, name) for where, _, names in sorted(os.walk(folder)) for name in names
    ]


def space_bytes(folder: str) -> int:
    """Return the bytes of all blocks of the files in and below a folder."""
    return sum(os.stat(path).st_blocks for path in files_of(folder)) * BLOCK_BYTES


# -- the page cache


def sync_files(folder: str) -> None:
    """Make the files durable: only clean pages can be dropped."""
    for path in files_of(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def drop_pages(folder: str) -> None:
    """Let the kernel forget the pages of all files of a folder, those that are mapped too.

    The bytes of a page that is clean are read again from the disk by who needs them next.
    """
    _unmap(os.path.realpath(folder))
    for path in files_of(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _unmap(folder: str) -> None:
    """Give back the mapped pages of files: the kernel keeps those that a process has mapped."""
    advise = ctypes.CDLL(None, use_errno=True).madvise
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        ours = [line.split(maxsplit=5) for line in file if f" {folder}/" in line]
    for bounds, _, _, _, _, *_ in ours:
        first, last = (int(bound, 16) for bound in bounds.split("-"))
        if advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), "madvise")


def resident_share(folder: str) -> float:
    """Return which part of the files' pages the page cache holds."""
    ask = ctypes.CDLL(None, use_errno=True).mincore
    held = pages = 0
    for path in files_of(folder):
        size = os.path.getsize(path)
        if not size:
            continue
        with (
            open(path, "r+b") as file,
            mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view,
        ):
            count = -(-size // mmap.PAGESIZE)
            states = (ctypes.c_ubyte * count)()
            first = ctypes.c_char.from_buffer(view)
            failed = ask(ctypes.byref(first), ctypes.c_size_t(size), states)
            del first
            if failed:
                raise OSError(ctypes.get_errno(), "mincore")
            held += sum(state & 1 for state in states)
            pages += count
    return held / pages if pages else 0.0
