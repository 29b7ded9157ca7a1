"""`holdfast torture DIR`: tries everything that could lose or falsify data, for a given time.

The harness is in the room `testing`, which nothing imports; it is looked up by its name when the
verb is called, and not before (docs/adr/0017-torture-is-found-by-name.md).
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from holdfast.cli.failure import CommandError

_HARNESS = "holdfast.testing.torture"


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    _harness().configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    status: int = _harness().run(arguments)
    return status


def _harness() -> Any:
    try:
        return import_module(_HARNESS)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("holdfast.testing"):
            raise
        raise CommandError("this installation has no test harnesses") from None
