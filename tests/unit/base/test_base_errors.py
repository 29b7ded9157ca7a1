"""Errors, invariants and events."""

import pickle
import subprocess
import sys

import pytest

from holdfast.base import (
    ConflictError,
    CorruptionError,
    DeadlockError,
    Error,
    LimitError,
    check,
    invariants,
    mark,
    marks_seen,
    require,
)


def test_corruption_names_file_offset_and_reason():
    error = CorruptionError("00000007.table", 4096, "the checksum does not match")
    assert (error.file, error.offset) == ("00000007.table", 4096)
    assert error.reason == "the checksum does not match"
    assert str(error) == "00000007.table: damaged at byte 4096: the checksum does not match"


def test_corruption_survives_pickling_with_its_attributes():
    error = pickle.loads(pickle.dumps(CorruptionError("a", 1, "b")))
    assert (error.file, error.offset, error.reason) == ("a", 1, "b")


def test_relations_that_callers_rely_on():
    assert issubclass(DeadlockError, ConflictError)
    assert issubclass(LimitError, ValueError)
    assert issubclass(CorruptionError, Error)
    assert not issubclass(Error, AssertionError)


def test_require_raises_unless_its_condition_holds():
    require([1], "unused")
    with pytest.raises(AssertionError, match="the lock is held"):
        require([], "the lock is held")


def test_check_runs_only_when_checks_are_on(monkeypatch):
    calls = []

    def condition():
        calls.append(1)
        return False

    monkeypatch.setattr(invariants, "CHECKS", False)
    check(condition, "unused")
    assert calls == []
    monkeypatch.setattr(invariants, "CHECKS", True)
    with pytest.raises(AssertionError, match="sorted"):
        check(condition, "sorted")
    assert calls == [1]


def test_require_does_not_obey_the_optimise_switch(root):
    program = "import holdfast.base as b; b.require(False, 'stays on')"
    done = subprocess.run(
        [sys.executable, "-O", "-c", program],
        cwd=root / "src",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "AssertionError: stays on" in done.stderr


def test_a_mark_is_counted_by_name():
    before = marks_seen().get("base.test", 0)
    mark("base.test")
    mark("base.test")
    assert marks_seen()["base.test"] == before + 2
    marks_seen().clear()
    assert marks_seen()["base.test"] == before + 2
