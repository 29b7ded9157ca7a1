"""Keys on the command line: never an argument itself, which other users of the machine could see.

`--key-file` names a file, a pipe too, with 32 raw bytes, or 64 hexadecimal digits; `--key-env` an
environment variable with such digits; `--passphrase` asks on the terminal, or reads a line where
standard input is none. The same three with `new-` in front give the key that takes its place.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from contextlib import suppress

from holdfast.cli.failure import CommandError, wrong_usage
from holdfast.crypto import KeySource, key_files
from holdfast.env import PosixEnv, open_stream, read_stream

_RAW_BYTES = 32
_FILE_BYTES_MAX = 256
"""Of a key file: the digits, and as much white space as anybody has around them."""
_LINE_BYTES_MAX = 1 << 16


def add_key(parser: argparse.ArgumentParser, *, prefix: str = "", what: str = "the key") -> None:
    """Add --key-file, --key-env and --passphrase."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        f"--{prefix}key-file",
        metavar="FILE",
        help=f"{what} of an encrypted database: 32 bytes, or 64 hexadecimal digits",
    )
    group.add_argument(
        f"--{prefix}key-env",
        metavar="NAME",
        help=f"{what}: 64 hexadecimal digits in an environment variable",
    )
    group.add_argument(
        f"--{prefix}passphrase",
        action="store_true",
        help=f"{what} is a passphrase: ask for it, or read a line of standard input",
    )


def key_of(
    arguments: argparse.Namespace, *, prefix: str = "", creates: bool = False
) -> KeySource | None:
    """Return the key that the command line names, or None; `creates` says that a database which is
    not there yet gets it. Raises: CommandError; OSError.
    """
    before = prefix.replace("-", "_")
    file = getattr(arguments, f"{before}key_file")
    variable = getattr(arguments, f"{before}key_env")
    if file is not None:
        return KeySource(_of_file(file))
    if variable is not None:
        text = os.environ.get(variable)
        if text is None:
            raise wrong_usage(f"there is no environment variable {variable}")
        return KeySource(_of_digits(text, f"the environment variable {variable}"))
    if getattr(arguments, f"{before}passphrase"):
        # A new one that was mistyped would open nothing ever again.
        twice = bool(prefix) or (creates and not _has_keys(arguments.database))
        return _of_words(_asked(f"{prefix.replace('-', ' ')}passphrase: ", twice=twice))
    return None


def _has_keys(path: str) -> bool:
    with suppress(FileNotFoundError):
        return bool(key_files(PosixEnv(), path))
    return False


def _of_file(path: str) -> bytes:
    with open_stream(path) as stream:
        data = read_stream(stream, _FILE_BYTES_MAX + 1)
    if len(data) == _RAW_BYTES:
        return data
    if len(data) > _FILE_BYTES_MAX:
        raise _no_key(path)
    try:
        return _of_digits(data.decode("ascii"), path)
    except UnicodeDecodeError:
        raise _no_key(path) from None


def _of_digits(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise _no_key(where) from None
    if len(key) != _RAW_BYTES:
        raise _no_key(where)
    return key


def _of_words(words: str) -> KeySource:
    try:
        return KeySource(words)
    except ValueError as error:
        raise wrong_usage(str(error)) from None


def _no_key(where: str) -> CommandError:
    return wrong_usage(f"{where} holds no key: neither 32 bytes nor 64 hexadecimal digits")


def _asked(prompt: str, *, twice: bool) -> str:
    """Return a passphrase from the terminal, a new one asked for twice, or from a line of standard
    input.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        words = getpass.getpass(prompt)
        if twice and words != getpass.getpass("the same again: "):
            raise wrong_usage("the two passphrases differ")
    else:
        line = b"" if sys.stdin is None else sys.stdin.buffer.readline(_LINE_BYTES_MAX)
        try:
            words = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise wrong_usage("the passphrase is not UTF-8") from None
    if not words:
        raise wrong_usage("the passphrase is empty")
    return words
