"""The ciphers that a database may be sealed with. Both come from the package `cryptography`, which
is loaded when the first database is opened with a key, and not before.

A suite is authenticated encryption with a 32-byte key, a 12-byte nonce and a 16-byte tag.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

from holdfast.crypto.secret import Secret
from holdfast.env import Buffer, Env

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

_TRIAL_BYTES: Final = 16 * 1024
_TRIALS: Final = 8


class Suite(IntEnum):
    """The cipher of a database. Part of the file format."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


class Aead(Protocol):
    """A cipher with its key. Thread safety: any number of threads may use it."""

    def encrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer
    ) -> int:
        """Write ciphertext and tag of `data`, TAG_BYTES longer than it."""
        ...

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        """Return what ciphertext and tag were made of. Raises: InvalidTag."""
        ...

    def decrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer
    ) -> int:
        """Write what ciphertext and tag were made of, TAG_BYTES shorter. Raises: InvalidTag."""
        ...


def make_aead(suite: Suite, key: Secret) -> Aead:
    """Return a cipher. Raises: ModuleNotFoundError when its library is not there."""
    library = _load()
    if suite is Suite.AES_256_GCM:
        return library.AESGCM(key.reveal())
    return library.ChaCha20Poly1305(key.reveal())


def invalid_tag() -> type[Exception]:
    """Return the exception by which a cipher says that a tag does not match."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  loaded with the first key

    return InvalidTag


def derive(secret: Secret, *, salt: bytes, info: bytes) -> Secret:
    """Return a key that is made of `secret`, by HKDF with SHA-256."""
    _load()
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  see `_load`
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415  see `_load`

    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info)
    return Secret(derived.derive(secret.reveal()))


def require_ciphers() -> None:
    """Raises: ModuleNotFoundError when the library of the ciphers is not there."""
    _load()


def choose_suite(env: Env) -> Suite:
    """Return the suite for a new database on this machine: AES-256-GCM, but ChaCha20-Poly1305 where
    a trial shows that AES is slower, as it is without instructions for it.
    """
    costs = []
    for suite in Suite:
        aead = make_aead(suite, Secret(bytes(KEY_BYTES)))
        target = bytearray(_TRIAL_BYTES + TAG_BYTES)
        for _ in range(_TRIALS):
            began = env.monotonic()
            # Zeros under a key that everybody knows: nothing is hidden by it.
            aead.encrypt_into(bytes(NONCE_BYTES), bytes(_TRIAL_BYTES), None, target)
            costs.append((env.monotonic() - began, suite))
    return min(costs)[1]


class _Library(Protocol):
    def AESGCM(self, key: bytes) -> Aead: ...  # noqa: N802  the library's name

    def ChaCha20Poly1305(self, key: bytes) -> Aead: ...  # noqa: N802  the library's name


def _load() -> _Library:
    """Return the module of the ciphers. It takes 20 ms to load, so nobody pays who has no key."""
    try:
        from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415  see above
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "encryption needs the package cryptography, which the extra holdfast[crypto] names: "
            "pip install cryptography",
            name=error.name,
        ) from error
    return aead
