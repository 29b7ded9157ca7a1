"""How a verb reaches its harness in the room `testing`, which nothing imports.

It is looked up by its name when the verb is called, and not before
(docs/adr/0017-torture-is-found-by-name.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from holdfast.cli.failure import CommandError


def find_harness(name: str) -> Any:
    """Return the module of a harness. Raises: CommandError when the package lacks them."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(name.rpartition(".")[0]):
            raise
        raise CommandError("this installation has no test harnesses") from None
