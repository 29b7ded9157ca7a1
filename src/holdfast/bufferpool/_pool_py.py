"""The buffer pool: decoded pages in memory, by (file number, offset), within one budget in bytes.

Guarantees:

- Frames, evicted pages that somebody still holds, and reserved bytes together stay within the
  capacity. Only pinned pages, held pages and the reservation itself can exceed it.
- A page is immutable. Who holds one may use it for ever: eviction drops the pool's reference and
  nothing else.
- Each page is charged the room of its body, and PAGE_OVERHEAD_BYTES for its objects, so many tiny
  pages are bounded too. What a compiled reader adds to a page that is hit often is charged when
  it is added.

The policy is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache
eviction, SOSP 2023), with sizes in bytes. It resists scans: a page seen once passes through a small
queue and leaves without touching the rest. With room = max(0, capacity - reserved), exactly:

1. A frame is in one of the queues SMALL, MAIN or PINNED; a GHOST is the key and charge of a page
   that left SMALL. Queues are first in, first out. A frame has a hit counter that starts at 0.
2. `get` of a frame adds 1 to its counter, up to HITS_MAX. Nothing moves.
3. `put` of a new key goes to SMALL, of a ghost to MAIN (and the ghost goes), pinned to PINNED. A
   key that is present is removed first; its replacement enters the same queue with the same
   counter, except that one that was pinned enters SMALL.
4. Before a page enters, pages are evicted until it fits. A page that is not pinned is not kept, and
   nothing is evicted for it, when it is charged more than a quarter of the room, or more than
   pinned and held pages leave of the room.
5. To evict a page: when SMALL is charged more than a tenth of the room, or MAIN is empty, take the
   oldest of SMALL: with PROMOTE_HITS hits or more it moves to MAIN with counter 0, else it is
   evicted and becomes a ghost. Otherwise take the oldest of MAIN: with a counter above 0 it goes
   round with one less, else it is evicted. Repeat until one was evicted.
6. Ghosts are charged like their pages and dropped, oldest first, while they exceed nine tenths of
   the room.

Thread safety: every method may be called from any thread. The compiled twin never gives up the GIL
within a method; this one takes a mutex.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Self

from holdfast.codec import body_room
from holdfast.env import PosixEnv

PAGE_OVERHEAD_BYTES = 192
"""What a page is charged beside its body: its object, its frame and, later, its ghost."""

HITS_MAX = 3
PROMOTE_HITS = 2
BYTES_MAX = 1 << 62
"""The greatest capacity and reservation."""

Key = tuple[int, int]


class _Ledger:
    """Bytes of pages that left a pool and are still held by somebody."""

    def __init__(self) -> None:
        self.detached_bytes = 0


class Page(bytes):
    """One decoded page: immutable bytes and a page type. `bytes(page)`, `len(page)` and the buffer
    protocol work on it.

    It is charged to the one pool that it is put into, until it is freed.
    """

    page_type: int
    _ledger: _Ledger | None
    _resident: bool

    def __new__(cls, body: bytes | bytearray | memoryview, page_type: int) -> Self:
        page = super().__new__(cls, memoryview(body))
        page.page_type = page_type
        page._ledger = None
        page._resident = False
        return page

    def __del__(self) -> None:
        if self._ledger is not None and not self._resident:
            self._ledger.detached_bytes -= body_room(len(self)) + PAGE_OVERHEAD_BYTES

    def __repr__(self) -> str:
        return f"<Page type {self.page_type}, {len(self)} bytes>"


class _Frame:
    """A page in a queue; in a ghost the page is None."""

    __slots__ = ("charge", "hits", "page")

    def __init__(self, page: Page | None, charge: int, hits: int) -> None:
        self.page = page
        self.charge = charge
        self.hits = hits


class _Queue(OrderedDict[Key, _Frame]):
    """Frames or ghosts, oldest first, and what they are charged together."""

    def __init__(self) -> None:
        super().__init__()
        self.charge = 0

    def push(self, key: Key, frame: _Frame) -> None:
        self[key] = frame
        self.charge += frame.charge

    def take(self, key: Key) -> _Frame:
        frame = self.pop(key)
        self.charge -= frame.charge
        return frame

    def oldest(self) -> Key:
        return next(iter(self))


class BufferPool:
    """Pages by (file number, offset), within `capacity_bytes`. See the module for the policy."""

    def __init__(self, capacity_bytes: int) -> None:
        self._ledger = _Ledger()
        self._small = _Queue()
        self._main = _Queue()
        self._pinned = _Queue()
        self._ghosts = _Queue()
        self.capacity_bytes = _check_bytes(capacity_bytes, "capacity")
        self.reserved_bytes = 0
        self.hits = 0
        self.misses = 0
        self.tables_skipped = 0
        """Tables that scans left out because a filter denied their prefix."""
        self.evictions = 0
        self._mutex = PosixEnv().mutex()

    def __del__(self) -> None:
        for queue in (self._small, self._main, self._pinned):
            for frame in queue.values():
                self._detach(frame)

    @property
    def used_bytes(self) -> int:
        """What all pages are charged: the frames, and evicted pages that are still held."""
        return self._frames_charge() + self._ledger.detached_bytes

    @property
    def pinned_bytes(self) -> int:
        """What pinned frames are charged."""
        return self._pinned.charge

    @property
    def page_count(self) -> int:
        """The number of frames."""
        return len(self._small) + len(self._main) + len(self._pinned)

    def get(self, file_number: int, offset: int) -> Page | None:
        """Return the page, or None. Counts a hit or a miss."""
        key = _check_key(file_number, offset)
        with self._mutex:
            for queue in (self._small, self._main, self._pinned):
                frame = queue.get(key)
                if frame is not None:
                    self.hits += 1
                    frame.hits = min(frame.hits + 1, HITS_MAX)
                    return frame.page
            self.misses += 1
            return None

    def put(self, file_number: int, offset: int, page: Page, pinned: bool = False) -> None:
        """Keep `page` under this key, if it fits or is pinned.

        Raises: ValueError when the page is in this pool under another key, or belongs to another
        pool.
        """
        key = _check_key(file_number, offset)
        if not isinstance(page, Page):
            raise TypeError(f"a page is a Page, not {type(page).__name__}")
        with self._mutex:
            here = next((queue for queue in self._queues() if key in queue), None)
            known = page._ledger in (None, self._ledger)
            if not known or (page._resident and (here is None or here[key].page is not page)):
                raise ValueError("a page belongs to one pool and has one key there")
            queue, hits = self._small, 0
            if here is not None:
                old = here.take(key)
                if here is self._ghosts:
                    queue = self._main
                else:
                    if here is not self._pinned:
                        queue, hits = here, old.hits
                    self._detach(old)
                del old
            if pinned:
                queue = self._pinned
            charge = body_room(len(page)) + PAGE_OVERHEAD_BYTES
            fixed = self._pinned.charge + self._ledger.detached_bytes
            if not pinned and (charge > self._room() // 4 or charge > self._room() - fixed):
                return
            self._shrink_to(self._room() - charge)
            if pinned or self.used_bytes + charge <= self._room():
                if page._ledger is not None:
                    self._ledger.detached_bytes -= charge
                page._ledger, page._resident = self._ledger, True
                queue.push(key, _Frame(page, charge, hits))

    def drop_file(self, file_number: int) -> None:
        """Drop every frame and ghost of a file, pinned ones too."""
        with self._mutex:
            for queue in self._queues():
                for key in [key for key in queue if key[0] == file_number]:
                    self._detach(queue.take(key))

    def reserve(self, byte_count: int) -> None:
        """Add to the bytes that others use of the budget (negative: give back). Pages make room at
        once.

        Raises: ValueError when less than nothing would be reserved.
        """
        with self._mutex:
            self.reserved_bytes = _check_bytes(self.reserved_bytes + byte_count, "reservation")
            self._shrink_to(self._room())
            self._trim_ghosts()

    def resize(self, capacity_bytes: int) -> None:
        """Change the capacity. Pages make room at once."""
        with self._mutex:
            self.capacity_bytes = _check_bytes(capacity_bytes, "capacity")
            self._shrink_to(self._room())
            self._trim_ghosts()

    def keys(self) -> list[Key]:
        """Return the keys of all frames: SMALL oldest first, MAIN oldest first, then PINNED oldest
        first.
        """
        with self._mutex:
            return [*self._small, *self._main, *self._pinned]

    def _queues(self) -> tuple[_Queue, ...]:
        return (self._small, self._main, self._pinned, self._ghosts)

    def _frames_charge(self) -> int:
        return self._small.charge + self._main.charge + self._pinned.charge

    def _room(self) -> int:
        return max(0, self.capacity_bytes - self.reserved_bytes)

    def _detach(self, frame: _Frame) -> None:
        """Give up the page of a frame that has left its queue."""
        if frame.page is not None:
            frame.page._resident = False
            self._ledger.detached_bytes += frame.charge
            frame.page = None

    def _shrink_to(self, target: int) -> None:
        while self.used_bytes > target and (self._small or self._main):
            self._evict_one()

    def _evict_one(self) -> None:
        while True:
            if self._small and (self._small.charge > self._room() // 10 or not self._main):
                key = self._small.oldest()
                frame = self._small.take(key)
                if frame.hits < PROMOTE_HITS:
                    self._detach(frame)
                    self._ghosts.push(key, frame)
                    self._trim_ghosts()
                    break
                frame.hits = 0
                self._main.push(key, frame)
            else:
                key = self._main.oldest()
                frame = self._main.take(key)
                if frame.hits == 0:
                    self._detach(frame)
                    break
                frame.hits -= 1
                self._main.push(key, frame)
        self.evictions += 1

    def _trim_ghosts(self) -> None:
        while self._ghosts.charge > self._room() - self._room() // 10:
            self._ghosts.take(self._ghosts.oldest())


def _check_bytes(count: int, role: str) -> int:
    if not 0 <= count <= BYTES_MAX:
        raise ValueError(f"the {role} is {count} bytes; it must lie between 0 and {BYTES_MAX}")
    return count


def _check_key(file_number: int, offset: int) -> Key:
    if not 0 <= file_number < 1 << 64 or not 0 <= offset < 1 << 64:
        raise OverflowError("file numbers and offsets are unsigned 64-bit integers")
    return file_number, offset
