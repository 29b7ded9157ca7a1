"""`holdfast delete DB KEY`: removes one key; one that is absent stays absent."""

from __future__ import annotations

import argparse

from holdfast.cli.opening import (
    add_database,
    add_durability,
    add_form,
    add_keyspace,
    find_keyspace,
    key_argument,
    open_database,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument("key", metavar="KEY", help="the key")
    add_keyspace(parser, "the database's own")
    add_durability(parser)
    add_form(parser, "the key")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    key = key_argument(arguments.key, arguments.form) or b""
    with open_database(arguments) as database:
        keyspace = find_keyspace(database, arguments.keyspace)
        keyspace.delete(key, durability=arguments.durability)
    return 0
