"""What the verbs share: arguments for databases, keyspaces and bytes, and opening them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import holdfast
from holdfast.base import VALUE_BYTES_MAX
from holdfast.cli.failure import CommandError, wrong_usage
from holdfast.cli.functions import functions_of
from holdfast.cli.keys import add_key, key_of
from holdfast.cli.text import Form, parse
from holdfast.crypto import KeySource
from holdfast.engine import SnapshotKeyspace
from holdfast.env import File, PosixEnv, open_stream, read_stream

DURABILITIES = ("commit", "interval", "none")


def add_database(parser: argparse.ArgumentParser) -> None:
    """Add the DB argument, and those that give the key of an encrypted database."""
    parser.add_argument("database", metavar="DB", help="the folder of the database")
    add_key(parser)


def add_keyspace(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --keyspace; `default` says what is taken without it."""
    parser.add_argument("--keyspace", metavar="NAME", help=f"the keyspace (default: {default})")


def add_durability(parser: argparse.ArgumentParser) -> None:
    """Add --durability."""
    parser.add_argument(
        "--durability",
        choices=DURABILITIES,
        default="commit",
        help="commit (default): synced when the command returns; interval, none: at the latest "
        "when the database is closed, which the command does at its end",
    )


def add_form(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --hex and --raw for `what`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--hex",
        dest="form",
        action="store_const",
        const=Form.HEX,
        default=Form.TEXT,
        help=f"{what} in hexadecimal",
    )
    group.add_argument(
        "--raw", dest="form", action="store_const", const=Form.RAW, help=f"{what} as they are"
    )


def open_database(
    arguments: argparse.Namespace,
    *,
    create: bool = False,
    read_only: bool = False,
    key: KeySource | None = None,
) -> holdfast.Database:
    """Open the database of a verb, with the merge functions that its arguments name and the key,
    unless `key` is given.

    Raises: CommandError; what `holdfast.open` raises.
    """
    functions = functions_of(arguments)
    source = key_of(arguments) if key is None else key
    return holdfast.open(
        arguments.database, create=create, read_only=read_only, key=source, merges=functions
    )


def find_keyspace(
    database: holdfast.Database, name: str | None, *, create: bool = False
) -> holdfast.Keyspace:
    """Return the keyspace of this name, None for the default one. Raises: CommandError."""
    if name is None:
        return database
    check_name(name)
    try:
        return database.keyspace(name, create=create)
    except KeyError:
        raise no_keyspace(database.path, name, database.keyspaces()) from None


def rows_of(
    keyspace: holdfast.Keyspace | SnapshotKeyspace,
    start: bytes | None = None,
    stop: bytes | None = None,
    *,
    prefix: bytes | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over keys and values; see `Keyspace.items`."""
    rows = keyspace.items(start, stop, prefix=prefix, reverse=reverse, limit=limit)
    return cast("Iterator[tuple[bytes, bytes]]", rows)


def check_name(name: str | None) -> None:
    """Raises: CommandError for a keyspace's name that is no text."""
    try:
        (name or "").encode()
    except UnicodeEncodeError:
        raise wrong_usage(f"the name of a keyspace is UTF-8, not {name!r}") from None


def check_apart(database: str, folder: str) -> None:
    """Raises: CommandError for a new folder that lies in that of the database."""
    outer, inner = os.path.realpath(database), os.path.realpath(folder)
    if os.path.commonpath((outer, inner)) == outer:
        raise wrong_usage(f"{folder} lies in the folder of the database; give another one")


def no_keyspace(path: str, name: str, existing: list[str]) -> CommandError:
    """Return the failure of a keyspace that is not there."""
    return CommandError(f"{path} has no keyspace {name!r}; it has {', '.join(map(repr, existing))}")


def key_argument(argument: str | None, form: Form) -> bytes | None:
    """Return the bytes of a key on the command line. Raises: CommandError for wrong usage."""
    if argument is None:
        return None
    try:
        return parse(argument, form)
    except ValueError as error:
        raise wrong_usage(str(error)) from None


def value_argument(argument: str, form: Form) -> bytes:
    """Return the bytes of a value: from the command line, for `-` standard input, for `@FILE` the
    content of a file. With --raw nothing has a special meaning. Raises: CommandError; OSError.
    """
    if form is not Form.RAW and argument == "-":
        return read_stream(sys.stdin.buffer, VALUE_BYTES_MAX + 1)
    if form is not Form.RAW and argument.startswith("@"):
        with open_stream(argument[1:]) as stream:
            return read_stream(stream, VALUE_BYTES_MAX + 1)
    found = key_argument(argument, form)
    return b"" if found is None else found


def open_file(path: str) -> File:
    """Open a file of a database that the user named; symbolic links are followed. Raises: OSError;
    CommandError.
    """
    return PosixEnv().open(resolved(path))


def resolved(path: str) -> str:
    """Return the path behind symbolic links. Raises: CommandError for a pipe that is open in this
    process, such as /dev/stdin or what a shell makes of <(...): there is no path to it.
    """
    env, real = PosixEnv(), os.path.realpath(path)
    with suppress(OSError):
        env.file_size(path)
        try:
            env.file_size(real)
        except FileNotFoundError:
            raise CommandError(f"{path} is no regular file") from None
    return real
