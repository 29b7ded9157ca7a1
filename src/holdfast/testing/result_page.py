"""Pages of results in docs/results: how they begin, and that they are of a commit.

A page names the commit that it measured, so that it can be measured again. A verb with `--write`
therefore refuses a checkout with uncommitted changes before it begins; other pages of results are
no part of what is measured and may be changed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from holdfast.testing.bench_report import machine, uncommitted

SHOWN_MAX = 3


def require_commit(parser: argparse.ArgumentParser, *, writes: bool) -> None:
    """End a verb that `writes` a page with status 2 when the checkout is no commit."""
    reason = missing_commit(writes=writes)
    if reason:
        parser.error(reason)


def missing_commit(*, writes: bool) -> str:
    """Return why a verb that `writes` a page must not begin, "" when it may."""
    changed = uncommitted() if writes else []
    if not changed:
        return ""
    more = f" and {len(changed) - SHOWN_MAX} more" if len(changed) > SHOWN_MAX else ""
    return (
        f"--write is for a commit, which the page names, and there are uncommitted changes: "
        f"{', '.join(changed[:SHOWN_MAX])}{more}; commit them first"
    )


def result_page(
    title: str,
    command: str,
    lines: Sequence[str],
    *,
    explanation: str,
    seconds: float | None = None,
    folder: str | None = None,
) -> str:
    """Return a page: its head, what the figures depend on, and `lines`. `folder` is where it was
    measured, if not in the current one.
    """
    head = [
        f"# Measured: {title}",
        "",
        "This page was written by the command below; nothing in it was typed by hand.",
        "",
        f"    {command}",
        "",
        *(f"- {name}: {value}" for name, value in machine(folder or os.getcwd()).items()),
        *([] if seconds is None else [f"- took: {seconds:,.0f} seconds"]),
        "",
        explanation,
        "",
    ]
    return "\n".join([*head, *lines]) + "\n"


def write_page(path: str, text: str) -> None:
    """Write a page. Raises: OSError."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
