"""Goal: `run` repeats what lost and nothing else, with pauses that are random and bounded."""

from __future__ import annotations

import pytest

from holdfast.base import ConflictError, LimitError, marks_seen
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.txn import Retry, Transaction


def test_it_runs_until_it_does_not_lose() -> None:
    with open_database("/db", env=SimEnv()) as db:
        seen = []

        def step(txn: Transaction) -> str:
            seen.append(txn.get(b"n"))
            if len(seen) < 4:
                db[b"n"] = b"%d" % len(seen)
            txn[b"mine"] = b""
            return "done"

        assert "done" == db.run(step)
        assert [None, b"1", b"2", b"3"] == seen


def test_after_the_last_attempt_the_error_says_how_often() -> None:
    with open_database("/db", env=SimEnv()) as db:

        def step(txn: Transaction) -> None:
            txn.get(b"n")
            db[b"n"] = b""
            txn[b"mine"] = b""

        for attempts, note in ((1, "once"), (3, "3 times")):
            with pytest.raises(ConflictError) as caught:
                db.run(step, attempts=attempts)
            assert [f"the transaction was run {note} and lost each time"] == caught.value.__notes__
        assert b"mine" not in db
        assert "txn.attempts_exhausted" in marks_seen()


def test_other_errors_end_it_at_once() -> None:
    with open_database("/db", env=SimEnv()) as db:
        calls = []

        def step(txn: Transaction) -> None:
            txn[b"a"] = b""
            calls.append(txn)
            raise KeyError

        with pytest.raises(KeyError):
            db.run(step)
        assert 1 == len(calls)
        assert not calls[0].is_open
        assert b"a" not in db
        with pytest.raises(LimitError, match="attempts is 0"):
            db.run(step, attempts=0)
        with pytest.raises(TypeError, match="attempts is an int, not str"):
            db.run(step, attempts="2")  # type: ignore[arg-type]


def test_pauses_double_and_are_bounded() -> None:
    retry = Retry(SimEnv(), 40)
    pauses = [retry.pause_after(ConflictError()) for _ in range(39)]
    assert all(0 <= pause < 0.001 * 2**at for at, pause in enumerate(pauses[:6]))
    assert max(pauses) < 0.1
    assert max(pauses) > 0.01
    assert len(set(pauses)) > 30
