"""Floor 2: keys, and sealing with them.

A `KeyRing` holds the data keys of a database and gives every file a `FileCipher` of its own;
`SealedEnv` hands it to the formats, which say by a `Sealing` what of a file is sealed. Formats:
docs/format/keys.md, docs/format/sealed.md. Who opens a database with which key is recovery's
affair.
"""

from holdfast.crypto._cipher import FileCipher
from holdfast.crypto.keyfile import (
    KEYS_PREFIX,
    ClosedKeyFile,
    KeyFile,
    decode_key_file,
    encode_key_file,
    key_file_name,
    parse_key_file_name,
)
from holdfast.crypto.keyring import KeyRing, key_files, read_key_file
from holdfast.crypto.piece import SEAL_BYTES, SealError
from holdfast.crypto.preamble import PREAMBLE_BYTES, SEAL_MAGIC, FileKind, Preamble
from holdfast.crypto.sealed import SealedEnv, SealedFile, Sealing, plain_env
from holdfast.crypto.secret import Secret
from holdfast.crypto.source import (
    SCRYPT_DEFAULT,
    Key,
    KeyCallable,
    KeySource,
    Protection,
    ScryptCost,
    SourceKind,
)
from holdfast.crypto.suite import Suite, require_ciphers
from holdfast.crypto.whole import WholeFileSealing

__all__ = [
    "KEYS_PREFIX",
    "PREAMBLE_BYTES",
    "SCRYPT_DEFAULT",
    "SEAL_BYTES",
    "SEAL_MAGIC",
    "ClosedKeyFile",
    "FileCipher",
    "FileKind",
    "Key",
    "KeyCallable",
    "KeyFile",
    "KeyRing",
    "KeySource",
    "Preamble",
    "Protection",
    "ScryptCost",
    "SealError",
    "SealedEnv",
    "SealedFile",
    "Sealing",
    "Secret",
    "SourceKind",
    "Suite",
    "WholeFileSealing",
    "decode_key_file",
    "encode_key_file",
    "key_file_name",
    "key_files",
    "parse_key_file_name",
    "plain_env",
    "read_key_file",
    "require_ciphers",
]
