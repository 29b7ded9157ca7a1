"""`holdfast put DB KEY VALUE`: writes one key; the database is created when absent."""

from __future__ import annotations

import argparse

from holdfast.cli.keys import key_of
from holdfast.cli.opening import (
    add_database,
    add_durability,
    add_form,
    add_keyspace,
    find_keyspace,
    key_argument,
    open_database,
    value_argument,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument("key", metavar="KEY", help="the key")
    parser.add_argument(
        "value",
        metavar="VALUE",
        help="the value; - reads it from standard input, @FILE from a file",
    )
    add_keyspace(parser, "the database's own; another one is created when absent")
    add_durability(parser)
    add_form(parser, "key and value")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    key = key_argument(arguments.key, arguments.form) or b""
    # Before the value: both may come from standard input.
    source = key_of(arguments, creates=True)
    value = value_argument(arguments.value, arguments.form)
    with open_database(arguments, create=True, key=source) as database:
        keyspace = find_keyspace(database, arguments.keyspace, create=True)
        keyspace.put(key, value, durability=arguments.durability)
    return 0
