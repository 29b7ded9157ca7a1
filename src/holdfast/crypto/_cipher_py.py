"""`FileCipher`: seals and opens the pieces of one file. The plain twin, which is the specification.

Every file has a key of its own, derived from a data key and the file's random *seal id*. A piece is
sealed under the nonce

    u32  its offset in the file, divided by 8, modulo 2^32
    8    random bytes, stored with the piece

and with the associated data

    the file's context (version, suite, kind, epoch, key ring, seal id), u64 offset, what the caller
    adds: type and length.

Guarantees:
1. No nonce is used twice under one key. Within a file two pieces share their offset only when one
   replaced the other, or when the file was continued twice from a copied memory (a virtual machine
   that was resumed twice): then the 64 random bits differ, which are drawn when the contents are
   complete. Two files never share a key: their seal ids are random.
2. What `open` returns was sealed for this place of this file, and for this type and length.

Thread safety: immutable; any number of threads may seal and open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NoReturn

from holdfast.base import require
from holdfast.crypto.piece import PLACE_UNIT_BYTES, SALT_BYTES, SEAL_BYTES, SealError
from holdfast.crypto.suite import Aead, invalid_tag
from holdfast.env import Buffer

_PLACE: Final = Struct("<Q")
_COUNTER: Final = Struct("<I")


class FileCipher:
    """The cipher of one file. `context` is what all its pieces are bound to."""

    __slots__ = ("_aead", "_context", "_decrypt", "_invalid_tag", "_random_bytes")

    def __init__(self, aead: Aead, context: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._aead = aead
        self._decrypt = aead.decrypt
        self._context = context
        self._random_bytes = random_bytes
        self._invalid_tag = invalid_tag()

    def seal(self, offset: int, data: Buffer, associated: Buffer) -> bytes:
        """Return the sealed piece of `data` that will lie at `offset`, SEAL_BYTES longer."""
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        sealed = bytearray(size + SEAL_BYTES)
        self.seal_into(offset, data, associated, memoryview(sealed))
        return bytes(sealed)

    def seal_into(self, offset: int, data: Buffer, associated: Buffer, target: memoryview) -> None:
        """Write the sealed piece to `target`, which is SEAL_BYTES longer than `data`.

        Requires: nobody changes `data` meanwhile.
        """
        self._seal(self._random_bytes(SALT_BYTES), offset, data, associated, target)

    @property
    def seal_bytes(self) -> int:
        """By how much a sealed piece is longer than its content."""
        return SEAL_BYTES

    def seal_many(
        self,
        offsets: Sequence[int],
        pieces: Sequence[Buffer],
        associated: Sequence[Buffer],
        targets: Sequence[memoryview],
    ) -> None:
        """Write the sealed piece of each of `pieces` to its target, as `seal_into` does.

        The random bytes of all are drawn at once: to ask for them lets other threads have the GIL,
        and to win it back for each piece takes longer than to seal it.
        """
        salts = self._random_bytes(SALT_BYTES * len(pieces))
        at = 0
        for offset, piece, extra, target in zip(offsets, pieces, associated, targets, strict=True):
            self._seal(salts[at : at + SALT_BYTES], offset, piece, extra, target)
            at += SALT_BYTES

    def _seal(
        self, salt: bytes, offset: int, data: Buffer, associated: Buffer, target: memoryview
    ) -> None:
        target[:SALT_BYTES] = salt
        self._aead.encrypt_into(
            _COUNTER.pack(offset // PLACE_UNIT_BYTES & 0xFFFFFFFF) + salt,
            data,
            b"".join((self._context, _PLACE.pack(offset), associated)),
            target[SALT_BYTES:],
        )

    def open(self, offset: int, sealed: Buffer, associated: Buffer) -> bytes:
        """Return the content of the piece at `offset`. Raises: SealError."""
        # Every page that is read comes here: one call less is a tenth of it.
        view = memoryview(sealed)
        if len(view) < SEAL_BYTES:
            raise SealError("the sealed piece is shorter than its seal")
        try:
            return self._decrypt(
                b"".join(
                    (_COUNTER.pack(offset // PLACE_UNIT_BYTES & 0xFFFFFFFF), view[:SALT_BYTES])
                ),
                view[SALT_BYTES:],
                b"".join((self._context, _PLACE.pack(offset), associated)),
            )
        except self._invalid_tag:
            raise SealError("the seal does not match") from None

    def open_many(
        self,
        offsets: Sequence[int],
        sealed: Sequence[memoryview],
        associated: Sequence[Buffer],
        targets: Sequence[memoryview],
    ) -> int:
        """Write the content of each of the pieces `sealed` to its target, which is SEAL_BYTES
        shorter, up to the first that does not open; return how many came before that.

        What the target of that one has then is not to be used.
        """
        count = 0
        for offset, piece, extra, target in zip(offsets, sealed, associated, targets, strict=True):
            if len(piece) < SEAL_BYTES:
                break
            try:
                written = self._aead.decrypt_into(
                    _COUNTER.pack(offset // PLACE_UNIT_BYTES & 0xFFFFFFFF)
                    + bytes(piece[:SALT_BYTES]),
                    piece[SALT_BYTES:],
                    b"".join((self._context, _PLACE.pack(offset), extra)),
                    target,
                )
            except self._invalid_tag:
                break
            require(written == len(target), "a cipher keeps sizes")
            count += 1
        return count

    def __repr__(self) -> str:
        return "<cipher of a file>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a cipher holds a key and is never pickled or copied")
