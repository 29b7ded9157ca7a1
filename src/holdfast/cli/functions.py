"""Merge functions on the command line: those of the program that wrote the database.

`--merge-function NAME=MODULE:FUNCTION` imports a module of that program, as it does itself, and
takes a function from it. Modules are also looked for in the folder the command is run in, behind
all other places. Nothing is imported unless the option says so.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module

from holdfast.cli.failure import MERGE_FUNCTION, CommandError, wrong_usage
from holdfast.merge import MergeFunction, Merges


def add_functions(parser: argparse.ArgumentParser) -> None:
    """Add --merge-function."""
    parser.add_argument(
        MERGE_FUNCTION,
        dest="merge_functions",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="a merge function of your own that values were merged with: its name in the database, "
        "and where it is to be imported from; may be given again",
    )


def functions_of(
    arguments: argparse.Namespace,
) -> dict[str, MergeFunction | Callable[..., bytes]]:
    """Return the functions that the command line names, by name. Raises: CommandError."""
    found: dict[str, MergeFunction | Callable[..., bytes]] = {}
    for given in getattr(arguments, "merge_functions", ()):
        name, _, place = given.partition("=")
        module, _, path = place.partition(":")
        if not (name and module and path):
            raise wrong_usage(f"{MERGE_FUNCTION} {given}: it has the form NAME=MODULE:FUNCTION")
        if name in found:
            raise wrong_usage(f"{MERGE_FUNCTION} {given}: {name!r} was given before")
        found[name] = _imported(given, module, path)
        try:
            Merges({name: found[name]})
        except (TypeError, ValueError) as error:
            raise wrong_usage(f"{MERGE_FUNCTION} {given}: {error}") from None
    return found


def _imported(given: str, module: str, path: str) -> MergeFunction | Callable[..., bytes]:
    """Return what a module has under a dotted path."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found: object = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise CommandError(f"{MERGE_FUNCTION} {given}: {type(error).__name__}: {error}") from error
    # Whatever it is: `Merges` says what it must be.
    return found  # type: ignore[return-value]
