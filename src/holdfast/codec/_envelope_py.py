"""The page envelope: the plain twin, which is the specification. Format: docs/format/page.md.

    stored page := payload trailer
    trailer     := compression:u8 page-type:u8 zero:u16 body-length:u32 checksum:u64

The payload is the body, compressed when that saves at least a sixteenth, and then sealed if there
is a cipher; the upper half of the compression's byte says so. The checksum is XXH64 over everything
before it, seeded with where the page belongs: a page that was written to, or read from, the wrong
place does not verify.

Guarantees: I1. `open_page(seal_page(...))` gives the body back. I2. Equal input gives equal stored
bytes. I3. Damaged bytes raise CorruptionError: no field is believed before the checksum over it
holds, and no length is allocated before it was compared with PAGE_BYTES_MAX and with what the
payload can expand to. I4. With a cipher no field is believed, and nothing decompressed, before the
seal opened; a page that is not sealed is refused.

Thread safety: pure functions.
"""

from __future__ import annotations

from operator import index
from struct import Struct

from holdfast.base.errors import CorruptionError, LimitError
from holdfast.base.limits import PAGE_BYTES_MAX
from holdfast.codec._checksum_py import checksum
from holdfast.codec._lz4_py import lz4_compress, lz4_decompress
from holdfast.codec.cipher import PageCipher
from holdfast.codec.zstandard import zstd_compress, zstd_decompress

NONE, LZ4, ZSTD = 0, 1, 2
"""Part of the file format; `holdfast.codec.Compression` is their face."""

SEALED = 0x10
"""In the compression's byte: the payload is sealed. Part of the file format."""

TRAILER_BYTES = 16
FILE_ID_BYTES = 16
RATIO_MAX = {LZ4: 255, ZSTD: 32768}
"""What a codec makes of a byte at most: a longer body is refused before memory is asked for."""

_FIELDS = Struct("<BBHI")
_PLACE = Struct("<16sQ")


def page_seed(file_id: bytes, offset: int) -> int:
    """Return the checksum seed of the page at `offset` of the file with this 16-byte id.

    Raises: ValueError when the id has not 16 bytes; OverflowError when `offset` is not a 64-bit
    unsigned integer.
    """
    offset = _unsigned(offset)
    if not isinstance(file_id, bytes):
        raise TypeError("a file id is bytes")
    if len(file_id) != FILE_ID_BYTES:
        raise ValueError("a file id has 16 bytes")
    return checksum(_PLACE.pack(file_id, offset))


def seal_page(
    body: bytes | bytearray | memoryview,
    page_type: int,
    compression: int,
    page_seed: int,
    cipher: PageCipher | None = None,
    offset: int = 0,
) -> bytes:
    """Return the stored page: payload and trailer; sealed for `offset` if there is a `cipher`.

    Raises: LimitError when the body is longer than PAGE_BYTES_MAX; ValueError when the compression
    is unknown or the page type does not fit a byte.
    """
    page_seed = _unsigned(page_seed)
    page_type = index(page_type)
    if not 0 <= page_type <= 255:
        raise ValueError("a page type fits one byte")
    compression = index(compression)
    if not NONE <= compression <= ZSTD:
        raise ValueError("unknown compression")
    view = _view(body)
    size = len(view)
    if size > PAGE_BYTES_MAX:
        raise LimitError(f"the page has {size} bytes; the limit is {PAGE_BYTES_MAX}")
    payload = b""
    if compression == LZ4:
        payload = lz4_compress(view)
    elif compression == ZSTD:
        payload = zstd_compress(view)
    if compression == NONE or (size - len(payload)) * 16 < size:
        compression = NONE
        payload = bytes(view)
    if cipher is not None:
        fields = _FIELDS.pack(compression | SEALED, page_type, 0, size)
        sealed = cipher.seal(offset, payload, fields) + fields
    else:
        sealed = payload + _FIELDS.pack(compression, page_type, 0, size)
    return sealed + checksum(sealed, page_seed).to_bytes(8, "little")


def open_page(
    stored: bytes | bytearray | memoryview,
    page_seed: int,
    file: str,
    offset: int,
    cipher: PageCipher | None = None,
) -> tuple[int, bytes]:
    """Return (page type, body) of a stored page, which must be sealed if there is a `cipher`.

    `file` and `offset` say where it was read from, for the error. Requires: nobody changes `stored`
    meanwhile. Raises: CorruptionError.
    """
    page_seed = _unsigned(page_seed)
    try:
        return _open(_view(stored), page_seed, offset, cipher)
    except _DamageError as damage:
        raise CorruptionError(file, offset, damage.reason) from None


class _DamageError(Exception):
    """What is wrong with a page, before it is known where it lies."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _open(
    stored: memoryview, seed: int, offset: int, cipher: PageCipher | None
) -> tuple[int, bytes]:
    if len(stored) < TRAILER_BYTES:
        raise _DamageError("the page is shorter than its trailer")
    if int.from_bytes(stored[-8:], "little") != checksum(stored[:-8], seed):
        raise _DamageError("the page's checksum does not match")
    payload = stored[:-TRAILER_BYTES]
    compression, page_type, zero, size = _FIELDS.unpack_from(stored, len(payload))
    if cipher is not None:
        if not compression & SEALED:
            raise _DamageError("the page is not sealed, and its file is")
        try:
            plain = cipher.open(offset, payload, bytes(stored[-TRAILER_BYTES:-8]))
        except ValueError:
            raise _DamageError("the page's seal does not match") from None
        payload = memoryview(plain)
        compression ^= SEALED
    if compression > ZSTD:
        raise _DamageError("the page's compression is unknown")
    if zero != 0:
        raise _DamageError("a reserved field of the page's trailer is not zero")
    if size > PAGE_BYTES_MAX:
        raise _DamageError("the page's body length is beyond the limit")
    if compression == NONE:
        if size != len(payload):
            raise _DamageError("the page's body length differs from its stored length")
        return page_type, bytes(payload)
    if size > len(payload) * RATIO_MAX[compression]:
        raise _DamageError("the page's body length is more than its payload can expand to")
    decompress = lz4_decompress if compression == LZ4 else zstd_decompress
    try:
        return page_type, decompress(payload, size)
    except ValueError:
        raise _DamageError("the page's compressed payload is malformed") from None


def _view(data: bytes | bytearray | memoryview) -> memoryview:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the data is not contiguous")
    return view.cast("B")


def _unsigned(value: int) -> int:
    value = index(value)
    if not 0 <= value < 2**64:
        raise OverflowError("the value is not a 64-bit unsigned integer")
    return value
