"""`holdfast torture DIR`: tries everything that could lose or falsify data, for a given time."""

from __future__ import annotations

import argparse

from holdfast.cli.harness import find_harness

_HARNESS = "holdfast.testing.torture"


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    find_harness(_HARNESS).configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    status: int = find_harness(_HARNESS).run(arguments)
    return status
