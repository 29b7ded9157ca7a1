"""The bytes of a key file, `KEYS.<iteration>`; docs/format/keys.md is the specification.

The data keys of all epochs are one sealed piece, under a key that is made of the caller's and of a
salt that was drawn when the caller gave it, and under a random nonce of this file alone. Everything
in clear is its associated data. A checksum over the whole tells damage from a wrong key.

Thread safety: pure functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct
from typing import Final

from holdfast.base import CorruptionError, FormatError, WrongKeyError
from holdfast.codec import checksum
from holdfast.crypto.secret import Secret
from holdfast.crypto.source import (
    WRAPPED_BYTES_MAX,
    KeySource,
    Protection,
    ScryptCost,
    SourceKind,
)
from holdfast.crypto.suite import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Aead,
    Suite,
    invalid_tag,
    make_aead,
)

KEYS_MAGIC: Final = b"HFkeys\r\n"
"""Part of the file format."""
KEYS_VERSION: Final = 1
"""Part of the file format."""
KEYS_PREFIX: Final = "KEYS."
RING_ID_BYTES: Final = 16
SALT_BYTES: Final = 32
EPOCHS_MAX: Final = 4096
"""So many data keys a key file holds at most. Part of the file format."""

_NAME: Final = re.compile(r"KEYS\.([1-9][0-9]{0,18})", re.ASCII)
_FIELDS: Final = Struct("<8sHBBI16sQIIIIII32s")
_ENTRY: Final = Struct(f"<I{KEY_BYTES}s")
_CHECKSUM: Final = Struct("<Q")

KEYS_BYTES_MAX: Final = (
    _FIELDS.size
    + WRAPPED_BYTES_MAX
    + NONCE_BYTES
    + EPOCHS_MAX * _ENTRY.size
    + TAG_BYTES
    + _CHECKSUM.size
)

if _FIELDS.size != 96:  # unreachable: the fields add up
    raise ImportError("the layout of crypto/keyfile.py does not add up to the file format")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What a key file holds. The keys are by epoch; `epoch` is the current one."""

    ring_id: bytes
    iteration: int
    suite: Suite
    epoch: int
    keys: dict[int, Secret]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedKeyFile:
    """A key file whose keys were not taken out yet. Nothing of it is known to be authentic."""

    name: str
    ring_id: bytes
    iteration: int
    suite: Suite
    epoch: int
    key_count: int
    protection: Protection
    clear: bytes
    """All that stands before the sealed keys: their associated data."""
    sealed: bytes
    """Nonce, ciphertext and tag."""

    def unlock(self, source: KeySource) -> tuple[KeyFile, Secret]:
        """Return the keys, and the one that they are sealed under.

        Raises: WrongKeyError; CorruptionError for keys that no writer makes; what a key callable
        raises.
        """
        wrapping = source.unlock(self.protection)
        aead = make_aead(self.suite, wrapping)
        nonce, sealed = self.sealed[:NONCE_BYTES], self.sealed[NONCE_BYTES:]
        try:
            keys = _unpacked(aead.decrypt(nonce, sealed, self.clear))
        except invalid_tag():
            raise WrongKeyError(f"{self.name}: the key is not that of this database") from None
        if len(keys) != self.key_count or self.epoch not in keys or 0 in keys:
            raise CorruptionError(self.name, len(self.clear), "the epochs of the keys do not agree")
        found = KeyFile(
            ring_id=self.ring_id,
            iteration=self.iteration,
            suite=self.suite,
            epoch=self.epoch,
            keys=keys,
        )
        return found, wrapping


def key_file_name(iteration: int) -> str:
    """Return the name of the key file of this iteration."""
    return f"{KEYS_PREFIX}{iteration}"


def parse_key_file_name(name: str) -> int | None:
    """Return the iteration of a key file's name, or None for other names."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def encode_key_file(
    keys: KeyFile, protection: Protection, wrapping_key: Secret, nonce: bytes
) -> bytes:
    """Return the bytes of a key file. Requires: `wrapping_key` was made as `protection` says, and
    `nonce` is random and of this file alone.
    """
    cost, wrapped = protection.cost, protection.wrapped
    size = (
        _FIELDS.size + len(wrapped) + NONCE_BYTES
        + len(keys.keys) * _ENTRY.size + TAG_BYTES + _CHECKSUM.size
    )  # fmt: skip
    clear = _FIELDS.pack(
        KEYS_MAGIC, KEYS_VERSION, keys.suite, protection.kind, size, keys.ring_id, keys.iteration,
        keys.epoch, len(keys.keys), cost.log2_n, cost.r, cost.p, len(wrapped), protection.salt,
    ) + wrapped  # fmt: skip
    aead = make_aead(keys.suite, wrapping_key)
    body = clear + nonce + _sealed(keys.keys, aead, nonce, clear)
    return body + _CHECKSUM.pack(checksum(body))


# The frame of whoever raises, or lets an error pass, is kept with the traceback, and with the frame
# all its names: so what follows holds keys under no name when it is left.


def _sealed(keys: dict[int, Secret], aead: Aead, nonce: bytes, clear: bytes) -> bytes:
    """Return the ciphertext and the tag of the data keys."""
    packed = b"".join(_ENTRY.pack(epoch, keys[epoch].reveal()) for epoch in sorted(keys))
    try:
        sealed = bytearray(len(packed) + TAG_BYTES)
        aead.encrypt_into(nonce, packed, clear, sealed)
        return bytes(sealed)
    finally:
        del packed


def _unpacked(packed: bytes) -> dict[int, Secret]:
    """Return the data keys by epoch."""
    key = b""
    try:
        keys = {}
        for epoch, key in _ENTRY.iter_unpack(packed):
            keys[epoch] = Secret(key)
        return keys
    finally:
        del packed, key


def decode_key_file(data: bytes, file: str, iteration: int) -> ClosedKeyFile:
    """Return a key file as it stands in `data`, at most KEYS_BYTES_MAX bytes.

    Raises: CorruptionError when it is damaged; FormatError when it is newer.
    """
    if len(data) < _FIELDS.size + NONCE_BYTES + TAG_BYTES + _CHECKSUM.size:
        raise CorruptionError(file, len(data), "the key file is cut short")
    (magic, version, suite, kind, size, ring_id, number, epoch, count, log2_n, r, p, wrapped_size,
     salt) = _FIELDS.unpack_from(data)  # fmt: skip
    if magic != KEYS_MAGIC:
        raise CorruptionError(file, 0, "the magic of the key file is damaged")
    (stored,) = _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)
    if stored != checksum(data[: -_CHECKSUM.size]):
        raise CorruptionError(file, 0, "the checksum of the key file does not match")
    if version > KEYS_VERSION:
        raise FormatError(f"{file}: key file version {version}; this Holdfast reads {KEYS_VERSION}")
    if suite not in set(Suite) or kind not in set(SourceKind) or version == 0:
        raise CorruptionError(file, 8, "the key file has an unknown suite or kind of key")
    cost = ScryptCost(log2_n, r, p)
    is_stretched = kind == SourceKind.PASSPHRASE
    problem = cost.problem() if is_stretched else None
    if problem is None and not is_stretched and (log2_n or r or p):
        problem = "the key file has parameters of scrypt that it does not need"
    if problem is None and (kind == SourceKind.CALLABLE) != (wrapped_size > 0):
        problem = "the key file has no wrapped key, or one that it does not need"
    if problem is None and not (wrapped_size <= WRAPPED_BYTES_MAX and 1 <= count <= EPOCHS_MAX):
        problem = "a count of the key file is out of range"
    start = _FIELDS.size + wrapped_size
    end = start + NONCE_BYTES + count * _ENTRY.size + TAG_BYTES
    if problem is None and (size != len(data) or end + _CHECKSUM.size != size):
        problem = "the size of the key file is not that of its content"
    if problem is None and (number != iteration or epoch == 0):
        problem = f"this is key file {number}"
    if problem is not None:
        raise CorruptionError(file, 0, problem)
    return ClosedKeyFile(
        name=file,
        ring_id=ring_id,
        iteration=iteration,
        suite=Suite(suite),
        epoch=epoch,
        key_count=count,
        protection=Protection(
            kind=SourceKind(kind), salt=salt, cost=cost, wrapped=data[_FIELDS.size : start]
        ),
        clear=data[:start],
        sealed=data[start:end],
    )
