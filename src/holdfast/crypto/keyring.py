"""`KeyRing`: the data keys of an open database, and the files in which they are kept.

The caller's key opens a key file, which holds one random data key for each *epoch*; every sealed
file has a key of its own, derived from the data key of its epoch and its random seal id. So the
caller's key can be changed without touching any data, and a new epoch begins without it, too.

A change is a new key file with the next iteration: written, synced, its name made durable; only
then are older ones unlinked. The highest iteration that is whole is in force. One that is not whole
beside an older one was being written when the power went, unless a file needs its keys.

Whoever opens a database for writing writes its key file anew, before anything is sealed: what is
read may come from a cache after a failed sync, and everything hangs on it.

Thread safety: safe; whoever asks for a key during a change gets one of before or of after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from struct import Struct
from typing import Final, NoReturn

from holdfast.base import CorruptionError, LimitError, WrongKeyError, mark
from holdfast.crypto._cipher import FileCipher
from holdfast.crypto.keyfile import (
    EPOCHS_MAX,
    KEYS_BYTES_MAX,
    RING_ID_BYTES,
    SALT_BYTES,
    ClosedKeyFile,
    KeyFile,
    decode_key_file,
    encode_key_file,
    key_file_name,
    parse_key_file_name,
)
from holdfast.crypto.preamble import SEAL_ID_BYTES, SEAL_VERSION, FileKind, Preamble
from holdfast.crypto.secret import Secret
from holdfast.crypto.source import SCRYPT_DEFAULT, KeySource, Protection, ScryptCost
from holdfast.crypto.suite import KEY_BYTES, NONCE_BYTES, Suite, choose_suite, derive, make_aead
from holdfast.env import Env, is_shortage

_CONTEXT: Final = Struct("<6sBBBBI16s16s")
_FILE_KEY: Final = b"holdfast file key 1"


class KeyRing:
    """The keys of one database. Its repr shows none of them."""

    __slots__ = ("_env", "_folder", "_keys", "_mutex", "_wrapping")

    def __init__(self, env: Env, folder: str, keys: KeyFile) -> None:
        """For `create` and `load` only."""
        self._env = env
        self._folder = folder
        self._keys = keys
        self._mutex = env.mutex()
        # How the key file in force is sealed, while an open may have to write another.
        self._wrapping: tuple[Protection, Secret] | None = None

    @classmethod
    def create(
        cls,
        env: Env,
        folder: str,
        source: KeySource,
        *,
        suite: Suite | None = None,
        cost: ScryptCost = SCRYPT_DEFAULT,
    ) -> KeyRing:
        """Make the keys of a new database and write its first key file.

        Durability: it is durable when the call returns. Raises: OSError; what a key callable
        raises.
        """
        keys = KeyFile(
            ring_id=env.random_bytes(RING_ID_BYTES),
            iteration=max(key_files(env, folder), default=0) + 1,
            suite=choose_suite(env) if suite is None else suite,
            epoch=1,
            keys={1: Secret(env.random_bytes(KEY_BYTES))},
        )
        ring = cls(env, folder, keys)
        ring._write(keys, *source.protect(env.random_bytes(SALT_BYTES), cost))
        # Of a creation that was cut off.
        ring.tidy()
        return ring

    @classmethod
    def load(cls, env: Env, folder: str, source: KeySource) -> KeyRing:
        """Return the keys of the database in `folder`, which has a key file.

        Raises: WrongKeyError when `source` does not open it; CorruptionError when it is damaged;
        FormatError when it is newer; OSError.
        """
        keys, _ = read_key_file(env, folder).unlock(source)
        return cls(env, folder, keys)

    @classmethod
    def load_for_writing(
        cls, env: Env, folder: str, source: KeySource, needed: Callable[[], Iterable[int]]
    ) -> KeyRing:
        """Like `load`, but write the key file anew, so that it is known to be durable. `needed`
        returns the epochs of the files in the folder.

        Raises: besides, CorruptionError when a newer key file is damaged that a file needs, with
        nothing changed; LimitError behind the last iteration.
        """
        closed = read_key_file(env, folder)
        keys, wrapping = closed.unlock(source)
        newest = max(key_files(env, folder))
        if closed.iteration != newest and not set(needed()) <= keys.keys.keys():
            # It was whole once, and may be mended, or read again, as long as it is there.
            raise CorruptionError(
                f"{folder}/{key_file_name(newest)}", 0, "it is damaged, and files need its keys"
            )
        ring = cls(env, folder, replace(keys, iteration=newest + 1))
        ring._wrapping = (closed.protection, wrapping)
        ring._go_over(ring._keys, *ring._wrapping)
        return ring

    @property
    def epoch(self) -> int:
        """The epoch whose data key new files get."""
        return self._keys.epoch

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs whose data keys are there, ascending."""
        return tuple(sorted(self._keys.keys))

    @property
    def ring_id(self) -> bytes:
        """The random identity of the ring: pieces of one database do not open in another."""
        return self._keys.ring_id

    @property
    def suite(self) -> Suite:
        """The cipher of all files."""
        return self._keys.suite

    def new_file(self, kind: FileKind) -> tuple[Preamble, FileCipher]:
        """Return the preamble of a new file and its cipher."""
        keys = self._keys
        seal_id = self._env.random_bytes(SEAL_ID_BYTES)
        preamble = Preamble(keys.suite, kind, keys.epoch, seal_id)
        return preamble, self._cipher(keys, preamble)

    def opened_file(self, preamble: Preamble, file: str, at: int) -> FileCipher:
        """Return the cipher of a file whose preamble stands at byte `at`. Raises: CorruptionError
        when there is no key for it.
        """
        keys = self._keys
        if preamble.suite is not keys.suite:
            raise CorruptionError(file, at, "it is sealed with another cipher than the database")
        if preamble.epoch not in keys.keys:
            raise CorruptionError(
                file,
                at,
                f"it is sealed in epoch {preamble.epoch}, whose key is not in the key file",
            )
        return self._cipher(keys, preamble)

    def protect(
        self, source: KeySource, *, cost: ScryptCost = SCRYPT_DEFAULT
    ) -> tuple[Protection, Secret]:
        """Return what `replace` takes to put the keys under another caller's key, which may take
        long: a key service is asked, or a passphrase hashed. Nothing is changed.

        Raises: what a key callable raises.
        """
        return source.protect(self._env.random_bytes(SALT_BYTES), cost)

    def replace(self, protection: Protection, wrapping: Secret) -> None:
        """Write the keys under another caller's key, with a data key for a new epoch.

        Durability: durable when the call returns; after an exception the keys of before or those of
        after are in force, and this ring goes on with those of before. Raises: OSError, LimitError.
        """
        with self._mutex:
            old = self._keys
            epoch = old.epoch + 1
            kept = {**old.keys, epoch: Secret(self._env.random_bytes(KEY_BYTES))}
            if len(kept) > EPOCHS_MAX:
                raise LimitError(
                    f"a key file holds {EPOCHS_MAX} epochs; rewrite the database first"
                )
            keys = replace(old, iteration=old.iteration + 1, epoch=epoch, keys=kept)
            self._go_over(keys, protection, wrapping)

    def forget_below(self, epoch: int) -> None:
        """Write the keys without those of epochs below `epoch`, under the same caller's key.

        Durability: as `replace`. Requires: no file of such an epoch is needed, and the ring was
        loaded for writing and did not `release` since. Raises: OSError, LimitError.
        """
        with self._mutex:
            wrapping = self._wrapping
            if wrapping is None:  # unreachable: see above
                raise AssertionError("the caller's key was released")
            old = self._keys
            kept = {number: key for number, key in old.keys.items() if number >= epoch}
            self._go_over(replace(old, iteration=old.iteration + 1, keys=kept), *wrapping)

    def read_file(self) -> tuple[str, bytes]:
        """Return the name and the content of the key file in force, which has the data keys of all
        files that were begun before the call. Raises: OSError.
        """
        with self._mutex:
            name = key_file_name(self._keys.iteration)
            file = self._env.open(f"{self._folder}/{name}")
            try:
                return name, file.read_at(0, KEYS_BYTES_MAX + 1)
            finally:
                file.close()

    def release(self) -> None:
        """Forget what the caller's key was made into: an open database needs only its data keys."""
        self._wrapping = None

    def _go_over(self, keys: KeyFile, protection: Protection, wrapping: Secret) -> None:
        self._write(keys, protection, wrapping)
        self._keys = keys
        self.tidy()

    def tidy(self) -> None:
        """Unlink the key files before the one in force, durably; what cannot be unlinked is left to
        the next open. Requires: the one in force is durable.
        """
        older = [number for number in key_files(self._env, self._folder) if self._is_old(number)]
        try:
            for number in older:
                self._env.unlink(
                    f"{self._folder}/{key_file_name(number)}", site="keys.obsolete.unlink"
                )
            if older:
                self._env.sync_dir(self._folder, site="keys.obsolete.folder_sync")
        except OSError:
            mark("keys.obsolete_kept")

    def _is_old(self, iteration: int) -> bool:
        return iteration < self._keys.iteration

    def _write(self, keys: KeyFile, protection: Protection, wrapping: Secret) -> None:
        env = self._env
        if parse_key_file_name(key_file_name(keys.iteration)) is None:
            raise LimitError(f"{self._folder}: there is no number for another key file")
        data = encode_key_file(keys, protection, wrapping, env.random_bytes(NONCE_BYTES))
        path = f"{self._folder}/{key_file_name(keys.iteration)}"
        with contextlib.suppress(FileNotFoundError):
            # Of a change that a crash or an error cut off; nothing was sealed under its keys.
            if keys.iteration in key_files(env, self._folder):
                env.unlink(path, site="keys.attempt.unlink")
        file = env.create(path, site="keys.create")
        try:
            file.write_at(0, data, site="keys.write")
            file.sync(site="keys.sync")
            env.sync_dir(self._folder, site="keys.folder_sync")
        except OSError as error:
            if is_shortage(error):
                # Attempts on a full disk must not fill it further.
                with contextlib.suppress(OSError):
                    env.unlink(path, site="keys.attempt.unlink")
            raise
        finally:
            file.close()

    def _cipher(self, keys: KeyFile, preamble: Preamble) -> FileCipher:
        context = _CONTEXT.pack(
            b"HFseal", SEAL_VERSION, preamble.suite, preamble.kind, 0, preamble.epoch,
            keys.ring_id, preamble.seal_id,
        )  # fmt: skip
        key = derive(keys.keys[preamble.epoch], salt=preamble.seal_id, info=_FILE_KEY + context)
        return FileCipher(make_aead(preamble.suite, key), context, self._env.random_bytes)

    def __repr__(self) -> str:
        return f"<keys of {self._folder}, epoch {self.epoch}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are never pickled or copied")


def key_files(env: Env, folder: str) -> list[int]:
    """Return the iterations of the key files in a folder, ascending."""
    found = (parse_key_file_name(name) for name in env.list_dir(folder))
    return sorted(number for number in found if number is not None)


def read_key_file(env: Env, folder: str) -> ClosedKeyFile:
    """Return the key file that is in force, which takes no key to find out.

    Raises: WrongKeyError when there is none; CorruptionError; FormatError; OSError.
    """
    damage: CorruptionError | None = None
    for iteration in reversed(key_files(env, folder)):
        path = f"{folder}/{key_file_name(iteration)}"
        try:
            file = env.open(path)
            try:
                data = file.read_at(0, KEYS_BYTES_MAX + 1)
            finally:
                file.close()
            found = decode_key_file(data, path, iteration)
        except CorruptionError as error:
            damage = damage or error
            continue
        if damage is not None:
            mark("keys.older_used")
        return found
    if damage is not None:
        raise damage
    raise WrongKeyError(f"{folder}: the database is not encrypted; open it without a key")
