"""The root digest: 48 bytes that stand for everything a database holds at one moment.

    root := edit:u64 lsn:u64 digest                     big-endian, so that bytes compare as numbers

The digest is SHA-256 of the database's id, the number of the last manifest edit, the version after
it as a snapshot, and ordinal and chain of the last log record. The version names every table by its
id and the checksum of its root page, and the chain is made of all records before.

Neither number ever goes back. So a folder with a smaller one was set back to an earlier state; with
the same two and another digest it is another history. Of a folder with greater ones it is not known
whether it went through the state of the digest: whoever pins a root pins it again after changes.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from holdfast.base import CorruptionError
from holdfast.env import Env
from holdfast.manifest import Version, VersionSet, encode_edit
from holdfast.recovery.needed import needed_log

_NUMBERS: Final = Struct(">QQ")
_CHAIN: Final = Struct(">Q")
_DIGEST_BYTES: Final = 32
ROOT_BYTES: Final = _NUMBERS.size + _DIGEST_BYTES
_WORDS: Final = b"holdfast root 1"


def root_of(database_id: bytes, version: Version, lsn: int, chain: int) -> bytes:
    """Return the root of a version and the log up to record `lsn`."""
    numbers = _NUMBERS.pack(version.edit_seq, lsn)
    content = (
        _WORDS,
        database_id,
        numbers,
        _CHAIN.pack(chain),
        encode_edit(version.snapshot_edit()),
    )
    # Loaded when it is used: an import of the package goes without.
    import hashlib  # noqa: PLC0415  see above

    return numbers + hashlib.sha256(b"".join(content)).digest()


def read_root(env: Env, folder: str) -> bytes:
    """Return the root of the database in `folder` as an open would find it.

    Raises: FileNotFoundError; CorruptionError, FormatError; OSError.
    """
    manifest = VersionSet.recover(env, folder)
    if manifest.is_new:
        raise FileNotFoundError(f"there is no database at {folder}")
    version = manifest.version
    lsn, chain = version.durable_lsn, 0
    if version.wal_first:
        contents = needed_log(env, folder, manifest)
        for _ in contents:
            pass
        lsn, chain = max(lsn, contents.last_lsn), contents.chain
    return root_of(manifest.database_id, version, lsn, chain)


def check_root_form(expected: bytes) -> None:
    """Raises: ValueError for what is no root."""
    if len(expected) != ROOT_BYTES:
        raise ValueError(f"a root has {ROOT_BYTES} bytes, not {len(expected)}")


def check_root(env: Env, folder: str, expected: bytes) -> None:
    """Check that a folder is not older than a root that was pinned.

    Raises: ValueError for what is no root; CorruptionError when the folder was set back or has
    another history; as `read_root`.
    """
    check_root_form(expected)
    found = read_root(env, folder)
    edit, lsn = _NUMBERS.unpack_from(found)
    edit_pinned, lsn_pinned = _NUMBERS.unpack_from(expected)
    if edit < edit_pinned or lsn < lsn_pinned:
        reason = (
            f"the folder was set back: it is at edit {edit} and record {lsn}, "
            f"and was at edit {edit_pinned} and record {lsn_pinned}"
        )
        raise CorruptionError(folder, 0, reason)
    if (edit, lsn) == (edit_pinned, lsn_pinned) and found != expected:
        raise CorruptionError(folder, 0, "the folder has another history than its root says")
