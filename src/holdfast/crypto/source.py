"""The key that a caller gives, in its three forms, and the key that protects a key file made of it.

- 32 raw bytes;
- a passphrase, which scrypt makes slow to guess (RFC 7914);
- a callable, for a key that lives elsewhere, such as in a key management service: called with None
  it returns a new 32-byte key and the form in which the service can give it back, called with that
  form it returns the key.

A caller's key opens the key file and nothing else; what it protects is in `keyring`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NoReturn, Protocol

from holdfast.base import WrongKeyError
from holdfast.crypto.secret import Secret
from holdfast.crypto.suite import KEY_BYTES, derive

WRAPPED_BYTES_MAX: Final = 4096
"""The longest form of a key that a callable may give. Part of the file format."""

PASSPHRASE_BYTES_MAX: Final = 4096

_INFO: Final = b"holdfast key file 1"


class SourceKind(IntEnum):
    """What a key file is protected by. Part of the file format."""

    RAW = 1
    PASSPHRASE = 2
    CALLABLE = 3


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """The parameters of scrypt: 2 to the power of `log2_n`, block size, parallelism."""

    log2_n: int
    r: int
    p: int

    def problem(self) -> str | None:
        """Return why these are not used, or None. A file that was made to take all memory or all
        time does not get them: 256 MiB and sixteen times the default work at most.
        """
        if not (10 <= self.log2_n <= 20 and 1 <= self.r <= 32 and 1 <= self.p <= 16):
            return "the parameters of scrypt are out of range"
        if 128 * self.r << self.log2_n > 256 << 20:
            return "the parameters of scrypt take more than 256 MiB"
        if self.r * self.p << self.log2_n > 16 * (8 * 3 << 15):
            return "the parameters of scrypt take too long"
        return None


SCRYPT_DEFAULT: Final = ScryptCost(15, 8, 3)
"""32 MiB and about 0.2 s: one of the settings that the OWASP password storage cheat sheet names."""


class KeyCallable(Protocol):
    """A key that lives elsewhere; see the module."""

    def __call__(self, wrapped: bytes | None, /) -> bytes | tuple[bytes, bytes]:
        """Return the key of `wrapped`; for None a new key and what it is wrapped in."""
        ...


Key = bytes | bytearray | memoryview | str | KeyCallable
"""What `key=` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """How the key of a key file is made of the caller's: what the file stores in clear."""

    kind: SourceKind
    salt: bytes
    cost: ScryptCost = field(default=ScryptCost(0, 0, 0))
    wrapped: bytes = b""


class KeySource:
    """A caller's key. Its repr shows nothing of it."""

    __slots__ = ("_ask", "_secret", "kind")

    def __init__(self, key: Key) -> None:
        """Raises: TypeError for what is no key; ValueError for one of a wrong size."""
        self._ask: Callable[[bytes | None], object] | None = None
        self.kind = SourceKind.RAW
        made: Secret | Exception | None = None
        if isinstance(key, str):
            self.kind = SourceKind.PASSPHRASE
            made = _of_words(key)
        elif isinstance(key, bytes | bytearray | memoryview):
            made = _of_bytes(bytes(key))
        elif callable(key):
            self.kind = SourceKind.CALLABLE
            self._ask = key
        else:
            made = TypeError(
                f"a key is {KEY_BYTES} bytes, a passphrase (str) or a callable, "
                f"not {type(key).__name__}"
            )
        # What a traceback shows of this frame must not be the key, nor one that was mistyped.
        del key
        if isinstance(made, Exception):
            raise made
        self._secret = made

    def protect(self, salt: bytes, cost: ScryptCost = SCRYPT_DEFAULT) -> tuple[Protection, Secret]:
        """Return how a new key file is protected, and by which key. Raises: what the callable
        raises.
        """
        if self.kind is SourceKind.PASSPHRASE:
            protection = Protection(kind=self.kind, salt=salt, cost=cost)
        elif self.kind is SourceKind.CALLABLE:
            new = _new_of(self._answer(None))
            if isinstance(new, Exception):
                raise new
            secret, wrapped = new
            protection = Protection(kind=self.kind, salt=salt, wrapped=wrapped)
            return protection, derive(secret, salt=salt, info=_INFO)
        else:
            protection = Protection(kind=self.kind, salt=salt)
        return protection, self.unlock(protection)

    def unlock(self, protection: Protection) -> Secret:
        """Return the key of a key file that is protected so.

        Raises: WrongKeyError when it is protected by another kind of key; what the callable raises.
        """
        if protection.kind is not self.kind:
            raise WrongKeyError(
                f"the database is protected by {_WORDS[protection.kind]}, "
                f"and the key is {_WORDS[self.kind]}"
            )
        if self.kind is SourceKind.CALLABLE:
            made = _unwrapped(self._answer(protection.wrapped))
            if isinstance(made, Exception):
                raise made
            secret = made
        else:
            secret = self._known()
        if self.kind is SourceKind.PASSPHRASE:
            secret = _stretch(secret, protection.salt, protection.cost)
        return derive(secret, salt=protection.salt, info=_INFO)

    def _known(self) -> Secret:
        secret = self._secret
        if secret is None:  # unreachable: every kind but a callable has one
            raise TypeError("the key has no bytes")
        return secret

    def _answer(self, wrapped: bytes | None) -> object:
        ask = self._ask
        if ask is None:  # unreachable: the kind says that there is one
            raise TypeError("the key is no callable")
        return ask(wrapped)

    def __repr__(self) -> str:
        return f"<key: {_WORDS[self.kind]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never pickled or copied")


_WORDS: Final = {
    SourceKind.RAW: "raw bytes",
    SourceKind.PASSPHRASE: "a passphrase",
    SourceKind.CALLABLE: "a callable",
}


# What follows returns an exception instead of raising it: the frame of whoever raises is kept with
# the traceback, and with the frame all its names.


def _new_of(answer: object) -> tuple[Secret, bytes] | Exception:
    """Return the key and the wrapped form that a callable gave for a new key."""
    if not (isinstance(answer, tuple) and len(answer) == 2):
        return TypeError("a key callable returns (key, wrapped) when it is called with None")
    key, wrapped = answer
    if not isinstance(key, bytes | bytearray | memoryview) or not isinstance(wrapped, bytes):
        return TypeError("a key callable returns (key, wrapped), both bytes")
    if not 1 <= len(wrapped) <= WRAPPED_BYTES_MAX:
        return ValueError(f"a wrapped key has 1 to {WRAPPED_BYTES_MAX} bytes, not {len(wrapped)}")
    if bytes(key) in wrapped:
        return ValueError("a wrapped key must not contain the key: it is stored in clear")
    made = _of_bytes(bytes(key))
    return made if isinstance(made, Exception) else (made, wrapped)


def _unwrapped(answer: object) -> Secret | Exception:
    """Return the key that a callable gave for a wrapped one."""
    if not isinstance(answer, bytes | bytearray | memoryview):
        return TypeError("a key callable returns the bytes of a key for a wrapped one")
    return _of_bytes(bytes(answer))


def _of_bytes(key: bytes) -> Secret | Exception:
    if len(key) != KEY_BYTES:
        return ValueError(
            f"a raw key has {KEY_BYTES} bytes, not {len(key)}; give a passphrase as a str"
        )
    return Secret(key)


def _of_words(words: str) -> Secret | Exception:
    try:
        # Two keyboards may compose one letter in two ways.
        text = unicodedata.normalize("NFC", words).encode()
    except UnicodeEncodeError:
        # The exception itself holds the words.
        return ValueError("a passphrase is text, without lone surrogates")
    if not 1 <= len(text) <= PASSPHRASE_BYTES_MAX:
        return ValueError(f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes")
    return Secret(text)


def _stretch(secret: Secret, salt: bytes, cost: ScryptCost) -> Secret:
    # Loaded when it is used: an import of the package goes without.
    import hashlib  # noqa: PLC0415  see above

    memory = 128 * cost.r << cost.log2_n
    return Secret(
        hashlib.scrypt(
            secret.reveal(),
            salt=salt,
            n=1 << cost.log2_n,
            r=cost.r,
            p=cost.p,
            maxmem=memory + 128 * cost.r * cost.p + (1 << 20),
            dklen=KEY_BYTES,
        )
    )
