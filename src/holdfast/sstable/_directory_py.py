"""Directories of entry pages: how a lookup in memory finds its place in a page at once.

A page as it lies on disk is searched by halving its restart points and walking the entries behind
one. A page that is hit often is given a directory, which is kept beside it in memory and is no part
of any file. These functions say what a lookup through one answers; the plain twin needs none.

Guarantees: an answer is that of a search in the page itself. The compiled twin may know no answer:
then it searches the page.

Thread safety: pure functions.
"""

from __future__ import annotations

from holdfast.bufferpool import Page
from holdfast.sstable._page_py import decode_entries, lower_bound


def find_entry(
    page: Page, file: str, offset: int, key: bytes, trailer: int
) -> tuple[int, bytes] | None:
    """Return (trailer, value) of the newest entry of a DATA page with this key and at most this
    trailer, or None.

    Raises: CorruptionError(file, offset of the page, reason) when the page is damaged.
    """
    entries = decode_entries(page, file, offset)
    at = lower_bound(entries, key, trailer)
    if at == len(entries) or entries[at][0] != key:
        return None
    return entries[at][1], entries[at][2]


def find_separator(page: Page, file: str, offset: int, key: bytes, trailer: int) -> int:
    """Return the number of the first entry of an index page that is at or behind this key and
    trailer; that of all entries when there is none.

    Raises: CorruptionError(file, offset of the page, reason) when the page is damaged.
    """
    return lower_bound(decode_entries(page, file, offset), key, trailer)
