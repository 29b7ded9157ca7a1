"""Small databases as plain bytes, to be damaged, and the judgement of what comes of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import holdfast
from holdfast import CorruptionError, DatabaseSettings, FormatError, KeyspaceSettings
from holdfast.engine import Database, opening
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.testing import torture_part

FOLDER = "/db"
Files = dict[str, bytes]
State = dict[str, dict[bytes, bytes]]

bounded = partial(torture_part.bounded, 20)
"""Raises HangError in the main thread when the block takes more seconds."""

SMALL = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=4 << 10,
    wal_bytes_max=1 << 20,
    keyspace=KeyspaceSettings(
        memtable_bytes=64 << 10,
        page_bytes=256,
        restart_interval=3,
        table_bytes=4 << 10,
        level0_tables=64,
        level1_bytes=8 << 10,
        level_ratio=2,
        compression="none",
        compression_last="zstd",
    ),
)


def value_of(number: int) -> bytes:
    return b"value %d of nothing special" % number


def key_of(number: int) -> bytes:
    return b"key %03d" % number


def files_of(machine: SimEnv) -> Files:
    """Return what the folder of a machine holds, as a killed process leaves it."""
    found = {}
    for name in machine.list_dir(FOLDER):
        file = machine.open(f"{FOLDER}/{name}")
        found[name] = file.read_at(0, file.size())
        file.close()
    return found


def machine_with(files: Files, seed: int = 7) -> SimEnv:
    """Return a machine whose folder holds these files."""
    machine = SimEnv(seed)
    machine.make_dir(FOLDER, site="test")
    for name, data in files.items():
        file = machine.create(f"{FOLDER}/{name}", site="test")
        file.write_at(0, data, site="test")
        file.close()
    return machine


def fill(database: Database, state: State) -> None:
    """Make tables of two levels and keyspaces, with range tombstones and old versions."""
    other = database.keyspace("other")
    for number in range(24):
        database.put(key_of(number), value_of(number), durability="none")
        other.put(b"other " + key_of(number), b"x", durability="none")
    database.compact()
    database.delete_range(key_of(5), key_of(9), durability="none")
    for number in range(10, 16):
        database.put(key_of(number), value_of(1000 + number), durability="none")
    del database[key_of(20)]
    database.flush()
    other.flush()
    state["default"] = dict(database.items())
    state["other"] = dict(other.items())


def closed_database(seed: int = 1) -> tuple[Files, State]:
    """Return a database that was closed."""
    machine, state = SimEnv(seed), {}
    with holdfast.open(FOLDER, settings=SMALL, env=machine) as database:
        fill(database, state)
        database[b"last"] = state["default"][b"last"] = b"words"
    return files_of(machine), state


def closed_with_edits() -> tuple[Files, State]:
    """Return a database that was closed when there was no room for another manifest."""
    machine, state = SimEnv(1), {}
    with holdfast.open(FOLDER, settings=SMALL, env=without_room(machine)) as database:
        fill(database, state)
        database[b"last"] = state["default"][b"last"] = b"words"
    return files_of(machine), state


def without_room(machine: SimEnv) -> FaultEnv:
    """Return a machine whose disk has no room for any manifest but the first."""
    full = FaultRule(
        kind="create", site="manifest.create.write", nth=2, times=None, error=errno.ENOSPC
    )
    env = FaultEnv(machine)
    env.add(full)
    return env


def crashed_database(
    seed: int = 1, commits: int = 5, key: bytes | None = None
) -> tuple[Files, list[State]]:
    """Return a database whose process was killed, and the states after each of its last commits."""
    machine, state = SimEnv(seed), {}
    database = holdfast.open(FOLDER, settings=SMALL, env=machine, key=key)
    fill(database, state)
    states = [state]
    for number in range(commits):
        key, value = key_of(number * 3), value_of(2000 + number)
        database[key] = value
        states.append({**states[-1], "default": {**states[-1]["default"], key: value}})
    files = files_of(machine)
    machine.cut_power()
    opening._open_databases.discard(database)
    return files, states


@dataclass(slots=True)
class Verdict:
    """What became of a damaged database."""

    kind: str
    """refused, found, harmless"""
    errors: list[CorruptionError | FormatError] = field(default_factory=list)
    report: list[CorruptionError] = field(default_factory=list)
    state: State | None = None


class WrongAnswerError(AssertionError):
    """A damaged database gave an answer that it should not have given."""


def examine(files: Files, acceptable: list[State], *, read_only: bool = True) -> Verdict:
    """Open a damaged folder, read everything in several ways, and verify.

    Every answer must be that of one acceptable state; CorruptionError and FormatError are the only
    errors that may come instead. Raises: WrongAnswerError.
    """
    with bounded():
        machine = machine_with(files)
        try:
            return _examine(machine, acceptable, read_only=read_only)
        finally:
            machine.cut_power()


def _examine(machine: SimEnv, acceptable: list[State], *, read_only: bool) -> Verdict:
    try:
        database = holdfast.open(FOLDER, create=False, read_only=read_only, env=machine)
    except (CorruptionError, FormatError) as error:
        if machine.unreturned():
            raise WrongAnswerError(f"after a refused open {machine.unreturned()}") from error
        return Verdict("refused", [error])
    verdict = Verdict("harmless")
    fitting = _read_everything(database, verdict, acceptable)
    if not fitting:
        raise WrongAnswerError("the answers are those of no acceptable state")
    verdict.state = fitting[0]
    verdict.report = database.verify().errors
    if verdict.report:
        verdict.kind = "found"
    elif verdict.errors:
        raise WrongAnswerError(f"verify does not find what a read found: {verdict.errors[0]}")
    try:
        database.close()
    except holdfast.Error as error:
        raise WrongAnswerError(f"the close failed: {error}") from error
    if machine.unreturned():
        raise WrongAnswerError(f"after a close {machine.unreturned()}")
    return verdict


def _read_everything(database: Database, verdict: Verdict, acceptable: list[State]) -> list[State]:
    """Return the acceptable states that every read which gave an answer agrees with."""
    fitting = acceptable

    def read(call: Callable[[], object], expected: Callable[[State], object]) -> None:
        nonlocal fitting
        try:
            found = call()
        except CorruptionError as error:
            verdict.errors.append(error)
        else:
            fitting = [state for state in fitting if found == expected(state)]

    read(database.keyspaces, sorted)
    for name in {name for state in acceptable for name in state}:
        if name not in database.keyspaces():
            return []
        keyspace = database.keyspace(name, create=False)
        keys = sorted({key for state in acceptable for key in state.get(name, ())})
        read(lambda: dict(keyspace.items()), lambda state: state[name])
        read(
            lambda: list(keyspace.items(reverse=True)),
            lambda state: sorted(state[name].items())[::-1],
        )
        for key in [*keys, *(key + b"!" for key in keys[::5]), b"", b"\xff"]:
            read(lambda: keyspace.get(key), lambda state: state[name].get(key))
    return fitting
