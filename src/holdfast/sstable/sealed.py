"""Sealed tables: the pages are sealed in their envelopes, the footer by a tail behind it.

    sealed table := table preamble seal                 the tail has 64 bytes

`SealedTable` is the plain face of such a file: it ends with the footer, and whoever reads or writes
pages gets the cipher for them from `page_cipher`. The tail's seal covers the footer, which names
the last pages, so nothing of a table is believed that was not sealed for it. docs/format/sealed.md.
"""

from __future__ import annotations

from typing import Final

from holdfast.base import CorruptionError, require
from holdfast.codec import PageCipher
from holdfast.crypto import (
    PREAMBLE_BYTES,
    SEAL_BYTES,
    FileCipher,
    FileKind,
    KeyRing,
    Preamble,
    SealedFile,
    SealError,
)
from holdfast.env import Buffer, File
from holdfast.sstable.format import FOOTER_BYTES

TAIL_BYTES: Final = PREAMBLE_BYTES + SEAL_BYTES
"""Part of the file format."""


class SealedTable(SealedFile):
    """The plain face of a sealed table. `cipher` is what its pages are sealed with."""

    def __init__(self, file: File, cipher: FileCipher, preamble: Preamble, *, is_new: bool) -> None:
        """One that is not new was opened, and its tail is right."""
        super().__init__(file)
        self.cipher = cipher
        self.epoch = preamble.epoch
        """That of the key which opens it. Constant after construction."""
        self._preamble = preamble
        self._lacks_tail = is_new
        self._end = b""
        self._written = 0

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        require(offset == self._written, "a table is written from front to back")
        super().write_at(offset, data, site=site)
        self._written += len(data)
        self._end = (self._end + bytes(data[-FOOTER_BYTES:]))[-FOOTER_BYTES:]

    def sync(self, *, site: str) -> None:
        """Write the tail behind what is the footer then, and sync."""
        if self._lacks_tail:
            seal = self.cipher.seal(self._written, b"", self._end)
            tail = self._preamble.encode() + seal
            self._lacks_tail = False
            super().write_at(self._written, tail, site=site)
        super().sync(site=site)

    def size(self) -> int:
        return max(super().size() - TAIL_BYTES, 0)

    def fileno(self) -> int:
        """The descriptor: the pages lie where their handles say."""
        return self._file.fileno()


def opened_for_salvage(file: File, ring: KeyRing) -> SealedTable:
    """Return the plain face of a table whose footer, or the seal of that, may be damaged.

    Raises: CorruptionError, FormatError when nothing says which key opens it; OSError.
    """
    at = max(file.size() - TAIL_BYTES, 0)
    stored = file.read_at(at, PREAMBLE_BYTES)
    preamble = Preamble.decode(stored, FileKind.TABLE, file.name, at)
    return SealedTable(file, ring.opened_file(preamble, file.name, at), preamble, is_new=False)


class TableSealing:
    """How tables are sealed. Implements `Sealing`."""

    def created(self, file: File, ring: KeyRing) -> File:
        preamble, cipher = ring.new_file(FileKind.TABLE)
        return SealedTable(file, cipher, preamble, is_new=True)

    def opened(self, file: File, ring: KeyRing) -> File:
        size = file.size()
        at = max(size - TAIL_BYTES, 0)
        tail = file.read_at(at, TAIL_BYTES)
        preamble = Preamble.decode(tail[:PREAMBLE_BYTES], FileKind.TABLE, file.name, at)
        cipher = ring.opened_file(preamble, file.name, at)
        footer = file.read_at(max(at - FOOTER_BYTES, 0), min(FOOTER_BYTES, at))
        try:
            cipher.open(at, tail[PREAMBLE_BYTES:], footer)
        except SealError:
            raise CorruptionError(file.name, at, "the seal of the footer does not match") from None
        return SealedTable(file, cipher, preamble, is_new=False)

    def plain_size(self, size: int) -> int:
        return max(size - TAIL_BYTES, 0)


def page_cipher(file: File) -> PageCipher | None:
    """Return what the pages of a table's file are sealed with, or None when they are not."""
    return file.cipher if isinstance(file, SealedTable) else None
