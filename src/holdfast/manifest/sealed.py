"""Sealed manifests: each write of the plain format is one sealed piece, a *frame*, behind the last.

    sealed manifest := preamble frame*
    frame           := magic:u32 stored-size:u32 seal content padding

A frame's content is the end of the seal before it, the plain offset and size, and the plain bytes
without the zeros at their end. So frames chain, and none can be left out, doubled or moved. Each
frame ends at a multiple of the manifest's alignment, as the record within did, so that nothing that
was synced shares a sector with what is appended.

The plain face of such a file shows what opened, and behind it, where a frame was torn, one byte
that is no record; a frame that opens behind one that does not is CorruptionError.
docs/format/sealed.md has the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from holdfast.base import CorruptionError, require
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
from holdfast.manifest.format import ALIGNMENT_MAX, ALIGNMENT_MIN, HEADER_BYTES, Header
from holdfast.manifest.log import FILE_BYTES_MAX

FRAME_MAGIC: Final = 0x4D535748
"""Part of the file format: the bytes "HWSM"."""

_FIELDS: Final = Struct("<II")
_CHAIN_BYTES: Final = 16
_PLACE: Final = Struct(f"<{_CHAIN_BYTES}sQII")
_FRAME_BYTES_MIN: Final = _FIELDS.size + SEAL_BYTES + _PLACE.size
_ATTEMPTS_MAX: Final = 64
"""So many frames are tried behind one that does not open."""

_TRIED_BYTES_MAX: Final = 1 << 31
"""So many bytes are tried there, about a second's work: each frame may be as long as the file."""

_WINDOW_BYTES: Final = 1 << 18
"""So much is read at once, a multiple of every alignment: what stands behind the frames of a file
must not take memory.
"""

_PIECE_BYTES_MAX: Final = SEAL_BYTES + _PLACE.size + FILE_BYTES_MAX
"""No piece is longer than one that holds a whole manifest."""

SEALED_BYTES_MAX: Final = 2 * FILE_BYTES_MAX
"""A longer file is refused before it is read: twice the longest plain manifest."""


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where the plain and the sealed bytes end, and what the next frame continues."""

    plain: int
    stored: int
    chain: bytes


class ManifestUnderWay(SealedFile):
    """The plain face of a sealed manifest that is written."""

    def __init__(self, file: File, cipher: FileCipher, preamble: bytes) -> None:
        super().__init__(file)
        self._cipher = cipher
        self._preamble = preamble
        self._alignment = ALIGNMENT_MIN
        self._ends = _Ends(0, PREAMBLE_BYTES, bytes(_CHAIN_BYTES))

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        ends = self._ends
        require(offset == ends.plain, "a manifest is appended to")
        plain = bytes(data)
        if offset == 0:
            self._alignment = Header.decode(plain[:HEADER_BYTES], self.name).alignment
        frame, following = self._frame(ends, plain)
        if offset == 0:
            super().write_at(0, self._preamble + frame, site=site)
        else:
            super().write_at(ends.stored, frame, site=site)
        self._ends = following

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        self.write_at(offset, data, site=site)
        self.sync(site=sync_site)

    def truncate(self, size: int, *, site: str) -> None:
        """Drop what a failed write may have left behind the last whole one."""
        require(size == self._ends.plain, "only a write that failed is taken back")
        super().truncate(self._ends.stored, site=site)

    def size(self) -> int:
        return self._ends.plain

    def _frame(self, ends: _Ends, plain: bytes) -> tuple[bytes, _Ends]:
        kept = plain.rstrip(b"\x00")
        content = _PLACE.pack(ends.chain, ends.plain, len(plain), 0) + kept
        fields = _FIELDS.pack(FRAME_MAGIC, len(content) + SEAL_BYTES)
        sealed = self._cipher.seal(ends.stored, content, fields)
        frame = fields + sealed
        frame += bytes(-(ends.stored + len(frame)) % self._alignment)
        following = _Ends(ends.plain + len(plain), ends.stored + len(frame), sealed[-_CHAIN_BYTES:])
        return frame, following


class ManifestAtRest(SealedFile):
    """The plain face of a sealed manifest that is read."""

    def __init__(self, file: File, cipher: FileCipher) -> None:
        super().__init__(file)
        self._cipher = cipher
        self._plain: bytes | None = None

    def read_at(self, offset: int, count: int) -> bytes:
        """Return plain bytes. Raises: CorruptionError."""
        return self._opened()[offset : offset + count]

    def size(self) -> int:
        """Return the size of the plain bytes. Raises: CorruptionError."""
        return len(self._opened())

    def read_salvaged(self) -> bytes:
        """Return the plain bytes of every frame that opens, at their places; 0xFF between them.

        For looking at damaged files. Raises: OSError.
        """
        stored = _Stored(super().read_at, min(super().size(), SEALED_BYTES_MAX))
        plain = bytearray()
        for frame in _frames_anywhere(stored, self._cipher):
            end = frame.plain_offset + len(frame.plain)
            if end <= SEALED_BYTES_MAX:
                plain.extend(b"\xff" * (end - len(plain)))
                plain[frame.plain_offset : end] = frame.plain
        return bytes(plain)

    def _opened(self) -> bytes:
        if self._plain is None:
            size = super().size()
            if size > SEALED_BYTES_MAX:
                raise CorruptionError(
                    self.name, SEALED_BYTES_MAX, f"a manifest of {size} bytes is longer than any"
                )
            stored = _Stored(super().read_at, size)
            self._plain = b"".join(_frames(stored, self._cipher, self.name))
        return self._plain


class _Stored:
    """The bytes of a sealed manifest, of which a window is in memory."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self._start = 0
        self._window = b""
        self.size = size

    def part(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at` on, fewer at the end of the file."""
        if count > _WINDOW_BYTES:
            # Of a frame that may be one: no longer than the file.
            return self._read(at, count)
        if not self._start <= at <= self._start + len(self._window) - count:
            self._start, self._window = at, self._read(at, _WINDOW_BYTES)
        return self._window[at - self._start : at - self._start + count]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame that opened."""

    chain: bytes
    plain_offset: int
    plain: bytes
    tag: bytes
    end: int
    """Where its padding begins."""

    def is_whole(self, stored: _Stored, alignment: int) -> bool:
        """Return whether the padding is there."""
        end = self.padded_end(alignment)
        return end <= stored.size and not any(stored.part(self.end, end - self.end))

    def padded_end(self, alignment: int) -> int:
        """Return where the next frame begins."""
        return self.end + -self.end % alignment


def _frames(stored: _Stored, cipher: FileCipher, file: str) -> Iterator[bytes]:
    """Yield the plain bytes of the frames. Raises: CorruptionError for a frame that does not belong
    where it is, and for one that does not open though another one behind it does.
    """
    ends = _Ends(0, PREAMBLE_BYTES, bytes(_CHAIN_BYTES))
    alignment = ALIGNMENT_MIN
    while ends.stored < stored.size or ends.plain == 0:
        frame = _open(stored, ends.stored, cipher)
        if frame is not None and ends.plain == 0:
            alignment = Header.decode(frame.plain[:HEADER_BYTES], file).alignment
        if frame is None or not frame.is_whole(stored, alignment):
            if ends.plain == 0:
                raise CorruptionError(file, ends.stored, "the seal of the first record is damaged")
            behind = ends.stored + alignment if frame is None else frame.padded_end(alignment)
            if _is_followed(stored, behind, alignment, cipher):
                raise CorruptionError(
                    file, ends.stored, "a record is damaged, but it was synced: another follows it"
                )
            yield b"\xff"
            return
        if (frame.chain, frame.plain_offset) != (ends.chain, ends.plain):
            raise CorruptionError(file, ends.stored, "a sealed record does not belong here")
        yield frame.plain
        ends = _Ends(ends.plain + len(frame.plain), frame.padded_end(alignment), frame.tag)


def _open(stored: _Stored, at: int, cipher: FileCipher) -> _Frame | None:
    """Return the frame at byte `at`, or None when none opens there."""
    size = _piece_size(stored, at)
    if size is None:
        return None
    begin = at + _FIELDS.size
    sealed = stored.part(begin, size)
    try:
        content = cipher.open(at, sealed, stored.part(at, _FIELDS.size))
    except SealError:
        return None
    chain, plain_offset, plain_size, zero = _PLACE.unpack_from(content)
    kept = content[_PLACE.size :]
    if zero != 0 or not 0 <= plain_size - len(kept) <= ALIGNMENT_MAX + ALIGNMENT_MIN:
        return None
    return _Frame(
        chain, plain_offset, kept.ljust(plain_size, b"\x00"), sealed[-_CHAIN_BYTES:], begin + size
    )


def _piece_size(stored: _Stored, at: int) -> int | None:
    """Return the size of the piece of what looks like a frame at byte `at` and lies within the
    file, or None.
    """
    if at > stored.size - _FRAME_BYTES_MIN:
        return None
    fields = stored.part(at, _FIELDS.size)
    if len(fields) < _FIELDS.size:
        return None
    magic, size = _FIELDS.unpack(fields)
    most = min(stored.size - at - _FIELDS.size, _PIECE_BYTES_MAX)
    if magic != FRAME_MAGIC or not _FRAME_BYTES_MIN - _FIELDS.size <= size <= most:
        return None
    return int(size)


def _frames_anywhere(stored: _Stored, cipher: FileCipher) -> Iterator[_Frame]:
    """Yield the frames that open, wherever they stand."""
    tried = attempts = 0
    for at in _magics(stored, PREAMBLE_BYTES, ALIGNMENT_MIN):
        frame = _open(stored, at, cipher)
        if frame is not None:
            yield frame
            continue
        # As many as open, but few that do not.
        attempts += 1
        tried += _piece_size(stored, at) or 0
        if attempts >= _ATTEMPTS_MAX or tried > _TRIED_BYTES_MAX:
            return


def _is_followed(stored: _Stored, start: int, alignment: int, cipher: FileCipher) -> bool:
    """Return whether a frame opens behind a damaged one, or too many look as if one might.

    Requires: `start` is a multiple of `alignment`.
    """
    tried = 0
    for attempts, at in enumerate(_magics(stored, start, alignment)):
        tried += _piece_size(stored, at) or 0
        if attempts >= _ATTEMPTS_MAX or tried > _TRIED_BYTES_MAX:
            return True
        if _open(stored, at, cipher) is not None:
            return True
    return False


def _magics(stored: _Stored, start: int, alignment: int) -> Iterator[int]:
    """Yield the multiples of `alignment` from `start` on where the magic of a frame stands."""
    magic = _FIELDS.pack(FRAME_MAGIC, 0)[:4]
    for window_start in range(start, stored.size, _WINDOW_BYTES):
        # No magic stands across two windows: each begins at a multiple of the alignment.
        window = stored.part(window_start, _WINDOW_BYTES)
        place = window.find(magic)
        while place >= 0:
            if place % alignment == 0:
                yield window_start + place
            place = window.find(magic, place + 1)


class ManifestSealing:
    """How manifests are sealed. Implements `Sealing`."""

    def created(self, file: File, ring: KeyRing) -> File:
        preamble, cipher = ring.new_file(FileKind.MANIFEST)
        return ManifestUnderWay(file, cipher, preamble.encode())

    def opened(self, file: File, ring: KeyRing) -> File:
        preamble = Preamble.decode(file.read_at(0, PREAMBLE_BYTES), FileKind.MANIFEST, file.name, 0)
        return ManifestAtRest(file, ring.opened_file(preamble, file.name, 0))

    def plain_size(self, size: int) -> int:
        return size
