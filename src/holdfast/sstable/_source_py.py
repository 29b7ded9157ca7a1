"""Reads the pages of one table from its file: the specification of what a page must be.

Invariants:

1. No page is returned before its envelope, the checksum that its handle holds, its type and its
   structure were checked, in this order: the first that is wrong is the error.
2. The entries of an ingested table have the trailer that the source was given. Such a page is
   stamped once it was checked, and nobody has seen it before.
3. A close waits for those who read: no descriptor becomes that of another file under a read.

Thread safety: a source is shared freely. A `close` while others read lets each of them finish the
page that it reads; then they get DatabaseClosedError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from holdfast.base import CorruptionError, DatabaseClosedError
from holdfast.bufferpool import Page
from holdfast.codec import open_page, page_seed
from holdfast.env import File
from holdfast.sstable._filter import filter_check
from holdfast.sstable._page_py import decode_entries, stamp_entries
from holdfast.sstable.format import FILE_ID_BYTES, Handle, PageType
from holdfast.sstable.sealed import page_cipher

Result = TypeVar("Result")


class PageSource:
    """The open file of a table. `file` becomes its own once the constructor has returned.

    All pages lie before `limit`. `stamp` is the trailer of all entries of an ingested table, 0 when
    they have their own. Raises: ValueError when the file id has not 16 bytes.
    """

    def __init__(self, file: File, file_id: bytes, limit: int, stamp: int) -> None:
        if len(file_id) != FILE_ID_BYTES:
            raise ValueError("a file id has 16 bytes")
        self.file = file
        self.name = file.name
        self.limit = limit
        self._file_id = file_id
        self._stamp = stamp
        self._cipher = page_cipher(file)
        self._closed = False
        # One item for each use of the file: adding and taking one cannot be interrupted.
        self._reads: list[None] = []

    def reads_ahead(self) -> bool:
        """Return whether many pages can be read at once, as they lie in the file."""
        return self.file.fileno() >= 0 and self._cipher is None

    def read(self, handle: Handle, page_type: int) -> Page:
        """Return the page that a handle names, which must have this type.

        Raises: CorruptionError; DatabaseClosedError; OSError.
        """
        self._check_open()
        problem = handle.problem(self.limit)
        if problem is not None:
            raise CorruptionError(self.name, handle.offset, problem)
        stored = self.use(lambda file: file.read_at(handle.offset, handle.size))
        if len(stored) != handle.size:
            raise CorruptionError(self.name, handle.offset, "the file ends within the page")
        seed = page_seed(self._file_id, handle.offset)
        found_type, body = open_page(stored, seed, self.name, handle.offset, self._cipher)
        if int.from_bytes(stored[-8:], "little") != handle.checksum:
            raise CorruptionError(
                self.name, handle.offset, "the page is not the one that its handle names"
            )
        page = Page(body, found_type)
        require_type(page, page_type, self.name, handle.offset)
        return self._checked(page, handle.offset)

    def use(self, work: Callable[[File], Result]) -> Result:
        """Return what `work` makes of the file, which is not closed meanwhile.

        Raises: DatabaseClosedError, and whatever `work` raises.
        """
        self._reads.append(None)
        try:
            # Not before: a close before this thread was counted did not wait for it.
            self._check_open()
            return work(self.file)
        finally:
            self._reads.pop()
            self._close_if_idle()

    def close(self) -> None:
        """Close the file as soon as nobody reads from it. Harmless the second time."""
        if not self._closed:
            self._closed = True
            self._close_if_idle()

    def _checked(self, page: Page, offset: int) -> Page:
        """Return the page, stamped if it has to be, once its structure was found to be sound."""
        if page.page_type == PageType.FILTER:
            problem = filter_check(page)
            if problem is not None:
                raise CorruptionError(self.name, offset, problem)
        elif page.page_type == PageType.DATA and self._stamp:
            page = stamp_entries(page, self._stamp, self.name, offset)
        else:
            decode_entries(page, self.name, offset)
        return page

    def _close_if_idle(self) -> None:
        if self._closed and not self._reads:
            self.file.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseClosedError("the table is closed")


def require_type(page: Page, page_type: int, file: str, offset: int) -> None:
    """Check that a page of `file` has the type of its place. Raises: CorruptionError."""
    if page.page_type != page_type:
        reason = f"the page has the type {page.page_type}; its place wants {int(page_type)}"
        raise CorruptionError(file, offset, reason)
