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
from holdfast.crypto import KeySource, Secret, key_files
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
    made: KeySource | CommandError | None = None
    if file is not None:
        made = _of_file(file)
    elif variable is not None:
        made = _of_variable(variable)
    elif getattr(arguments, f"{before}passphrase"):
        # A new one that was mistyped would open nothing ever again.
        twice = bool(prefix) or (creates and not _has_keys(arguments.database))
        made = _asked(f"{prefix.replace('-', ' ')}passphrase: ", twice=twice)
    if isinstance(made, CommandError):
        raise made
    return made


def _has_keys(path: str) -> bool:
    with suppress(FileNotFoundError):
        return bool(key_files(PosixEnv(), path))
    return False


# What follows returns an exception instead of raising it: the frame of whoever raises is kept with
# the traceback, and with the frame all its names, a key that was mistyped among them.


def _of_file(path: str) -> KeySource | CommandError:
    with open_stream(path) as stream:
        data = read_stream(stream, _FILE_BYTES_MAX + 1)
    if len(data) == _RAW_BYTES:
        return KeySource(data)
    if len(data) > _FILE_BYTES_MAX:
        return _no_key(path)
    return _of_digits(data, path)


def _of_variable(name: str) -> KeySource | CommandError:
    text = os.environ.get(name)
    if text is None:
        return wrong_usage(f"there is no environment variable {name}")
    return _of_digits(os.fsencode(text), f"the environment variable {name}")


def _of_digits(text: bytes, where: str) -> KeySource | CommandError:
    key = b""
    # An error to decode is a ValueError, too.
    with suppress(ValueError):
        key = bytes.fromhex(text.decode("ascii").strip())
    return KeySource(key) if len(key) == _RAW_BYTES else _no_key(where)


def _no_key(where: str) -> CommandError:
    return wrong_usage(f"{where} holds no key: neither 32 bytes nor 64 hexadecimal digits")


def _asked(prompt: str, *, twice: bool) -> KeySource | CommandError:
    """Return the passphrase that the terminal gives, a new one asked for twice, or a line of
    standard input.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        words = _typed(prompt)
        if twice and words.reveal() != _typed("the same again: ").reveal():
            return wrong_usage("the two passphrases differ")
    else:
        line = b"" if sys.stdin is None else sys.stdin.buffer.readline(_LINE_BYTES_MAX)
        words = Secret(line.rstrip(b"\r\n"))
    return _of_words(words)


def _typed(prompt: str) -> Secret:
    # While the second one is asked for the first one is in no variable that an interrupt shows.
    return Secret(getpass.getpass(prompt).encode("utf-8", "surrogatepass"))


def _of_words(words: Secret) -> KeySource | CommandError:
    if not words.reveal():
        return wrong_usage("the passphrase is empty")
    try:
        return KeySource(words.reveal().decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        # The exception itself holds the words.
        return wrong_usage("the passphrase is not UTF-8")
    except ValueError as error:
        return wrong_usage(str(error))
