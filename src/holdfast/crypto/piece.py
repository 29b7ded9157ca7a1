"""A sealed piece: the random part of its nonce, ciphertext and tag. docs/format/sealed.md has the
layout; the kernel `_cipher` makes and opens pieces.
"""

from __future__ import annotations

from typing import Final

from holdfast.crypto.suite import NONCE_BYTES, TAG_BYTES

COUNTER_BYTES: Final = 4
"""The part of a nonce that is the place of its piece. Part of the file format."""

SALT_BYTES: Final = 8
"""The random part of a nonce, in front of each sealed piece. Part of the file format."""

SEAL_BYTES: Final = SALT_BYTES + TAG_BYTES
"""So much longer than its content is a sealed piece. Part of the file format."""

PLACE_UNIT_BYTES: Final = 8
"""The unit in which a nonce counts places. Part of the file format."""

if COUNTER_BYTES + SALT_BYTES != NONCE_BYTES:  # unreachable: the sizes add up
    raise ImportError("a nonce has 12 bytes")


class SealError(ValueError):
    """A piece does not open: it was changed, or sealed for another place, file or database."""
