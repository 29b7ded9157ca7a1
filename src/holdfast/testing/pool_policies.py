"""Policies that the buffer pool is compared with, each short and plain: LRU, LRU-2, ARC, and what
no policy can do without knowing the future.

All of them count sizes in bytes, as the pool does. `Policy` is what a replay needs: a page that is
asked for is there or not, and one that was read enters. Pinned pages are not theirs: the replay
takes them out of the capacity.

Sources: LRU-2 from O'Neil, O'Neil, Weikum: The LRU-K page replacement algorithm for database disk
buffering (SIGMOD 1993). ARC from Megiddo, Modha: ARC, a self-tuning, low overhead replacement cache
(FAST 2003). The bound from Belady: A study of replacement algorithms for a virtual-storage computer
(IBM Systems Journal 1966).

Thread safety: none.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Protocol

Key = tuple[int, int]


class Policy(Protocol):
    """Which pages stay."""

    def get(self, key: Key) -> bool:
        """Return whether the page is there, and note that it was asked for."""
        ...

    def put(self, key: Key, size: int) -> None:
        """Take in a page that is not there, if the policy wants it."""
        ...

    def drop_file(self, number: int) -> None:
        """Forget all pages of a file."""
        ...

    def resize(self, capacity: int) -> None:
        """Change how many bytes there are."""
        ...


class Sized(OrderedDict[Key, int]):
    """Pages with their sizes, oldest first, and the sum of these."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def push(self, key: Key, size: int) -> None:
        """Add a page as the newest."""
        self[key] = size
        self.total += size

    def take(self, key: Key) -> int:
        """Remove a page and return its size."""
        size = self.pop(key)
        self.total -= size
        return size

    def take_oldest(self) -> tuple[Key, int]:
        """Remove the oldest page and return it."""
        key = next(iter(self))
        return key, self.take(key)

    def drop_file(self, number: int) -> None:
        """Remove all pages of a file."""
        for key in [key for key in self if key[0] == number]:
            self.take(key)


class Lru:
    """The page that was not asked for the longest goes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pages = Sized()

    def get(self, key: Key) -> bool:
        if key not in self._pages:
            return False
        self._pages.move_to_end(key)
        return True

    def put(self, key: Key, size: int) -> None:
        if size <= self._capacity:
            self._shrink(self._capacity - size)
            self._pages.push(key, size)

    def drop_file(self, number: int) -> None:
        self._pages.drop_file(number)

    def resize(self, capacity: int) -> None:
        self._capacity = capacity
        self._shrink(capacity)

    def _shrink(self, target: int) -> None:
        while self._pages.total > target:
            self._pages.take_oldest()


class Lru2:
    """The page whose last request but one is the oldest goes; one that was asked for once goes
    first, and of these the one of the oldest request. The times of pages that left are kept while
    their sizes together are within the capacity.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pages = Sized()
        self._gone = Sized()
        self._times: dict[Key, tuple[int, int]] = {}
        """The last request but one (-1: there was none) and the last one."""
        self._heap: list[tuple[int, int, Key]] = []
        self._now = 0

    def get(self, key: Key) -> bool:
        self._now += 1
        if key in self._times:
            self._note(key, self._times[key][1])
        return key in self._pages

    def put(self, key: Key, size: int) -> None:
        if size > self._capacity:
            return
        if key in self._gone:
            self._gone.take(key)
        else:
            self._times[key] = (-1, self._now)
        self._shrink(self._capacity - size)
        self._pages.push(key, size)
        self._note(key, self._times[key][0])

    def drop_file(self, number: int) -> None:
        self._pages.drop_file(number)
        self._gone.drop_file(number)
        for key in [key for key in self._times if key[0] == number]:
            del self._times[key]

    def resize(self, capacity: int) -> None:
        self._capacity = capacity
        self._shrink(capacity)

    def _note(self, key: Key, before: int) -> None:
        self._times[key] = (before, self._now)
        heapq.heappush(self._heap, (before, self._now, key))

    def _shrink(self, target: int) -> None:
        while self._pages.total > target:
            before, last, key = heapq.heappop(self._heap)
            # What was asked for again since has another entry.
            if key in self._pages and self._times[key] == (before, last):
                self._gone.push(key, self._pages.take(key))
        while self._gone.total > self._capacity:
            key, _ = self._gone.take_oldest()
            del self._times[key]


class Arc:
    """Two LRU lists, of pages asked for once and of pages asked for again, with the keys of those
    that left either; a request for one of these moves the border between the lists.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._border = 0.0
        """How many bytes the pages asked for once should have: `p` of the paper."""
        self._once, self._again = Sized(), Sized()
        self._gone_once, self._gone_again = Sized(), Sized()

    def get(self, key: Key) -> bool:
        for pages in (self._once, self._again):
            if key in pages:
                self._again.push(key, pages.take(key))
                return True
        return False

    def put(self, key: Key, size: int) -> None:
        if size > self._capacity:
            return
        target, was_again = self._once, False
        if key in self._gone_once:
            share = max(1.0, self._gone_again.total / self._gone_once.total)
            self._border = min(self._border + share * size, float(self._capacity))
            self._gone_once.take(key)
            target = self._again
        elif key in self._gone_again:
            share = max(1.0, self._gone_once.total / self._gone_again.total)
            self._border = max(self._border - share * size, 0.0)
            self._gone_again.take(key)
            target, was_again = self._again, True
        self._shrink(self._capacity - size, was_again)
        target.push(key, size)
        self._trim()

    def drop_file(self, number: int) -> None:
        for pages in (self._once, self._again, self._gone_once, self._gone_again):
            pages.drop_file(number)

    def resize(self, capacity: int) -> None:
        self._capacity = capacity
        self._border = min(self._border, float(capacity))
        self._shrink(capacity, False)
        self._trim()

    def _shrink(self, target: int, was_again: bool) -> None:
        while self._once.total + self._again.total > target:
            once = self._once.total
            over = once > self._border or (was_again and once == self._border)
            if self._once and (over or not self._again):
                self._gone_once.push(*self._once.take_oldest())
            else:
                self._gone_again.push(*self._again.take_oldest())

    def _trim(self) -> None:
        while self._gone_once and self._once.total + self._gone_once.total > self._capacity:
            self._gone_once.take_oldest()
        lists = (self._once, self._again, self._gone_once, self._gone_again)
        while self._gone_again and sum(pages.total for pages in lists) > 2 * self._capacity:
            self._gone_again.take_oldest()


NEVER = 1 << 60


class Furthest:
    """The page that will be asked for the latest goes, and one that comes later than all others is
    not taken in. With pages of one size nothing does better; with different sizes it is near that.

    `next_use` has, for each request in order, the number of the next one for the same page.
    """

    def __init__(self, capacity: int, next_use: list[int]) -> None:
        self._capacity = capacity
        self._next_use = next_use
        self._request = -1
        self._pages = Sized()
        self._due: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []

    def get(self, key: Key) -> bool:
        self._request += 1
        self._due[key] = self._next_use[self._request]
        if key not in self._pages:
            return False
        heapq.heappush(self._heap, (-self._due[key], key))
        return True

    def put(self, key: Key, size: int) -> None:
        if size <= self._capacity:
            self._pages.push(key, size)
            heapq.heappush(self._heap, (-self._due[key], key))
            self._shrink(self._capacity)

    def drop_file(self, number: int) -> None:
        self._pages.drop_file(number)

    def resize(self, capacity: int) -> None:
        self._capacity = capacity
        self._shrink(capacity)

    def _shrink(self, target: int) -> None:
        while self._pages.total > target:
            due, key = heapq.heappop(self._heap)
            if key in self._pages and self._due[key] == -due:
                self._pages.take(key)
