"""Shows a table: footer, properties, range tombstones, pages and entries (docs/format/table.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.base import MERGE, PUT, CorruptionError, FormatError, unpack_trailer
from holdfast.bufferpool import Page
from holdfast.cli.dump_output import Output
from holdfast.codec import Compression, open_page, page_seed
from holdfast.env import File
from holdfast.sstable import (
    FOOTER_BYTES,
    TABLE_MAGIC,
    Footer,
    Handle,
    PageType,
    decode_entries,
    decode_index_value,
    decode_root_value,
    filter_check,
    page_cipher,
)

Entries = list[tuple[bytes, int, bytes]]
_U64_BYTES = 8
_CODEC_BITS = 0x0F


def dump_table(file: File, output: Output) -> None:
    """Print a table. Raises: FormatError for a newer version; OSError."""
    size = file.size()
    output.line("table", file=file.name, bytes=size)
    at = max(0, size - FOOTER_BYTES)
    stored = file.read_at(at, FOOTER_BYTES)
    try:
        footer = Footer.decode(stored, file.name, size)
    except (CorruptionError, FormatError) as error:
        if isinstance(error, FormatError) and stored.startswith(TABLE_MAGIC):
            raise
        output.damage(getattr(error, "offset", at), getattr(error, "reason", str(error)))
        found = Footer.as_stored(stored)
        if found is None:
            return
        footer = found
    output.line(
        "footer",
        offset=at,
        number=footer.number,
        file_id=footer.file_id.hex(),
        bytes=footer.file_size,
        ingested=footer.is_ingested,
    )
    _Dump(file, footer, at, output).run()


class _Dump:
    """The walk over the pages of one table."""

    def __init__(self, file: File, footer: Footer, limit: int, output: Output) -> None:
        self._file = file
        self._footer = footer
        self._limit = limit
        self._output = output

    def run(self) -> None:
        """Print all that the footer leads to."""
        footer, output = self._footer, self._output
        for name, _, value in self._entries(footer.properties, PageType.PROPERTIES):
            number = len(value) == _U64_BYTES and name not in {b"lower", b"upper", b"origin"}
            shown = int.from_bytes(value, "little") if number else value
            output.line("property", 1, name=name, value=shown)
        if footer.tombstones is not None:
            for start, trailer, stop in self._entries(footer.tombstones, PageType.RANGE_TOMBSTONES):
                seq = unpack_trailer(trailer)[0]
                output.thing("delete range", 1, seq=seq, start=start, stop=stop)
        for separator, _, value in self._entries(footer.root, PageType.INDEX_ROOT):
            with self._marking(footer.root.offset):
                self._partition(separator, value)

    def _partition(self, separator: bytes, value: bytes) -> None:
        index, filter_handle = decode_root_value(value, self._limit)
        self._output.line("partition", up_to=separator)
        if filter_handle is not None:
            self._filter(filter_handle)
        for _, _, stored in self._entries(index, PageType.INDEX):
            with self._marking(index.offset):
                self._data(stored)

    def _data(self, value: bytes) -> None:
        handle = decode_index_value(value, self._limit)
        for key, trailer, stored in self._entries(handle, PageType.DATA):
            seq, kind = unpack_trailer(trailer)
            if kind == PUT:
                self._output.thing("put", 1, seq=seq, key=key, value=stored)
            elif kind == MERGE:
                self._output.thing("merge", 1, seq=seq, key=key, value=stored)
            else:
                self._output.thing("delete", 1, seq=seq, key=key)

    def _filter(self, handle: Handle) -> None:
        page = self._page(handle, PageType.FILTER)
        problem = None if page is None else filter_check(page)
        if problem is not None:
            self._output.damage(handle.offset, problem)

    def _entries(self, handle: Handle, page_type: PageType) -> Entries:
        """Print a page's line and return its entries, none when it is damaged."""
        page = self._page(handle, page_type)
        if page is None:
            return []
        try:
            return decode_entries(page, self._file.name, handle.offset)
        except CorruptionError as error:
            self._output.damage(error.offset, error.reason)
            return []

    def _page(self, handle: Handle, page_type: PageType) -> Page | None:
        """Print a page's line and return it, None when it is damaged."""
        offset = handle.offset
        problem = handle.problem(self._limit)
        if problem is not None:
            self._output.damage(offset, problem)
            return None
        stored = self._file.read_at(offset, handle.size)
        try:
            seed = page_seed(self._footer.file_id, offset)
            cipher = page_cipher(self._file)
            found_type, body = open_page(stored, seed, self._file.name, offset, cipher)
        except CorruptionError as error:
            self._output.damage(error.offset, f"{page_type.name} page: {error.reason}")
            return None
        self._output.line(
            "page",
            type=page_type.name,
            offset=offset,
            stored_bytes=len(stored),
            body_bytes=len(body),
            compression=Compression(stored[-16] & _CODEC_BITS).name,
        )
        if found_type != page_type:
            self._output.damage(offset, f"the page has the type {found_type}")
            return None
        if int.from_bytes(stored[-_U64_BYTES:], "little") != handle.checksum:
            self._output.damage(offset, "the page is not the one that its handle names")
        return Page(body, found_type)

    @contextlib.contextmanager
    def _marking(self, offset: int) -> Iterator[None]:
        """Mark the page at `offset` when what it holds is no handle."""
        try:
            yield
        except ValueError as error:
            self._output.damage(offset, str(error))
