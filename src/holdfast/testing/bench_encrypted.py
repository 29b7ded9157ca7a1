"""What encryption adds to recovery: an encrypted log beside a plain one of the same rows."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from holdfast.testing.bench_bulk import leave, reopen
from holdfast.testing.bench_measure import (
    Figure,
    Options,
    fresh_python,
    quotients,
    rounds_of,
    scratch,
)

KEY = bytes(range(32))
LOGS = ("groups of many rows", "one record a row")
SHARE = 8
"""The logs are so much smaller than those of `replay`: each is opened again and again."""


def recovery_encrypted(options: Options) -> list[Figure]:
    """Opening for reading what a process left that ended without a close: an encrypted database
    beside a plain one of the same rows.

    The two are opened in turn, by one process that has everything loaded, and nothing but the log
    is in them. A quotient is that of two neighbouring openings, of their CPU time, which other
    processes disturb less.
    """
    figures = []
    for what in LOGS:
        with scratch(options) as plain, scratch(options) as encrypted:
            works = []
            for folder, key in ((plain, None), (encrypted, KEY)):
                rows = _written(what, folder, key, options)
                works.append(partial(_open, folder, rows, key))
            for work in works:
                # What is loaded once is loaded now.
                work()
            taken = rounds_of(options.rounds, *works)
        figures += [
            rounds.figure(f"{kind}, {what}", "us/row")
            for kind, rounds in zip(("plain", "encrypted"), taken, strict=True)
        ]
        figures.append(
            Figure(
                what=f"encrypted by plain, {what}",
                unit="times the CPU",
                rounds=quotients(taken[1].cpu, taken[0].cpu),
            )
        )
    return figures


def leave_encrypted(what: str, folder: str, options: dict[str, Any]) -> NoReturn:
    """Write an encrypted log of one kind, print the number of its rows, and end without a close."""
    leave(what, folder, Options(**options), KEY)


def leave_plain(what: str, folder: str, options: dict[str, Any]) -> NoReturn:
    """Likewise, a plain one."""
    leave(what, folder, Options(**options), None)


def _written(what: str, folder: str, key: bytes | None, options: Options) -> int:
    small = {**options.to_plain(), "replay_bytes": options.replay_bytes // SHARE}
    name = (leave_plain if key is None else leave_encrypted).__name__
    program = f"from {__name__} import {name}; {name}({what!r}, {folder!r}, {small!r})"
    return int(fresh_python(["-c", program]))


def _open(folder: str, rows: int, key: bytes | None) -> int:
    reopen(folder, True, rows, lambda work: work(), key)
    return rows
