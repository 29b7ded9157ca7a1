"""The oracle finds what it is there to find: each test plants one lie, which must be named."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from holdfast.engine import Database, open_database
from holdfast.env import Env, SimEnv
from holdfast.testing.crash import Options, Recording, record, run, same_machine
from holdfast.testing.oracle import ABSENT, DEFAULT, FOLDER, Finding, History, examine
from holdfast.testing.workload import workload


@pytest.fixture
def recording() -> Recording:
    return record(workload("sync_puts"))


def machine_after(recording: Recording, change: Callable[[Database], object]) -> SimEnv:
    """Return the machine of a finished workload, after `change` and a clean close."""
    machine = recording.moments[-1].point.state("all").build()
    with open_database(FOLDER, env=machine) as database:
        change(database)
    return machine


def judged(recording: Recording, change: Callable[[Database], object]) -> Finding:
    return examine(machine_after(recording, change), recording.history, same_machine)


def test_a_database_that_nobody_touched_is_accepted(recording: Recording) -> None:
    finding = judged(recording, len)
    assert [] == finding.complaints
    assert (recording.history.submitted,) == finding.numbers
    assert "" == finding.complain_of_bounds(recording.history.durable, recording.history.submitted)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda database: database.delete(b"key/004"), "default[b'key/004'] should be"),
        (lambda database: database.put(b"ghost", b"1"), "default[b'ghost'] should be absent"),
        (lambda database: database.put(b"key/004", b"1"), "default[b'key/004'] should be"),
        (lambda database: database.keyspace("ghost"), "keyspace ghost is there"),
    ],
)
def test_a_state_that_never_was_is_refused(
    recording: Recording, change: Callable[[Database], object], named: str
) -> None:
    finding = judged(recording, change)
    assert () == finding.numbers
    assert named in finding.complaints[0]


def test_a_lost_commit_lies_below_the_bounds_and_one_from_nowhere_above() -> None:
    finding = Finding(numbers=(4,))
    assert "" == finding.complain_of_bounds(4, 4)
    assert "state 4 was found, but 5 was acknowledged" in finding.complain_of_bounds(5, 7)
    assert "but only 3 was submitted" in finding.complain_of_bounds(1, 3)
    lost = Finding(numbers=(ABSENT,)).complain_of_bounds(0, 3)
    assert "state 'no database' was found, but 0 was acknowledged" in lost


def test_a_state_that_came_twice_may_be_either_of_them() -> None:
    history = History()
    history.submit(lambda state: state[DEFAULT].update({b"a": b"1"}))
    history.submit(lambda state: state[DEFAULT].pop(b"a"))
    assert (0, 2) == history.numbers({DEFAULT: {}})
    assert "" == Finding(numbers=(0, 2)).complain_of_bounds(2, 2)


def test_damage_is_named(recording: Recording) -> None:
    machine = machine_after(recording, lambda database: database.flush())
    table = next(name for name in machine.list_dir(FOLDER) if name.endswith(".table"))
    image = machine.disk.find_file(f"{FOLDER}/{table}").volatile
    image = image.thawed()
    image.write(60, b"\xff" * 8)
    machine.disk.find_file(f"{FOLDER}/{table}").volatile = image
    finding = examine(machine, recording.history, same_machine)
    assert any(table in line for line in finding.complaints)


def test_a_file_that_nobody_names_is_named(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_after(recording, len)
    machine.create(f"{FOLDER}/00000001.table", site="test").close()
    monkeypatch.setattr(machine, "unlink", lambda path, *, site: None)
    finding = examine(machine, recording.history, same_machine)
    assert "after a clean close 00000001.table is there, which nothing names" in finding.complaints


class Forgetful:
    """An env whose files and locks are never given back."""

    def __init__(self, inner: Env) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def open(self, path: str) -> object:
        self._inner.open(path)
        return self._inner.open(path)


def test_what_is_not_given_back_is_named(recording: Recording) -> None:
    machine = machine_after(recording, len)
    finding = examine(machine, recording.history, Forgetful)
    assert any(line.endswith(".manifest is open") for line in finding.complaints)


def test_an_acknowledgement_before_its_sync_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.wal import LogWriter

    append = LogWriter.append
    monkeypatch.setattr(LogWriter, "sync", lambda log: None)
    monkeypatch.setattr(
        LogWriter, "append", lambda log, buffer, seq, *, durable=False: append(log, buffer, seq)
    )
    outcome = run("sync_puts", options=Options(depth=1, failures_max=1000))
    complaints = [line for failure in outcome.failures for line in failure.complaints]
    assert any("was acknowledged as durable" in line for line in complaints)


def test_a_workload_runs_the_same_every_time() -> None:
    one, other = record(workload("mixed", 5)), record(workload("mixed", 5))
    assert one.operations == other.operations
    for moment, twin in zip(one.moments, other.moments, strict=True):
        assert (moment.lower, moment.upper) == (twin.lower, twin.upper)
        expected = [(state.name, state.content_hash) for state in moment.point.states(["prefix"])]
        assert expected == [
            (state.name, state.content_hash) for state in twin.point.states(["prefix"])
        ]


HASH = """
import hashlib
from holdfast.testing.crash import record
from holdfast.testing.workload import workload
operations = record(workload("mixed", 3)).operations
print(hashlib.sha256(repr(operations).encode()).hexdigest())
"""


def test_a_workload_runs_the_same_whatever_the_hashes_of_strings_are() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", HASH],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert 1 == len(printed)
