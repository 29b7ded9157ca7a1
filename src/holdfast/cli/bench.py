"""`holdfast bench`: the same workloads with Holdfast and its peers, side by side."""

from __future__ import annotations

import argparse

from holdfast.cli.harness import find_harness

_HARNESS = "holdfast.testing.versus"


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    find_harness(_HARNESS).configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    status: int = find_harness(_HARNESS).run(arguments)
    return status
