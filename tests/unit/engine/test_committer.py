"""Goal: whoever hands in a submission is told once what came of it, also when memory is lacking at
any place of the thread that commits; nothing is committed twice, and that thread goes on.

Method: each step of it lacks memory once, before or after it did its work, on a simulated machine.
"""

from __future__ import annotations

import pytest

from holdfast.base import DatabaseClosedError, marks_seen
from holdfast.engine import Database, Submission, open_database, write_path
from holdfast.engine.committer import Committer
from holdfast.engine.crew import Crew
from holdfast.engine.write_path import WritePath
from holdfast.env import SimEnv
from holdfast.wal import WriteBatch
from tests.fault.test_memory_regressions import once

SECONDS_MAX = 10
SEEDS = range(4)


class Noting:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Submission] = []

    def receive(self, served: list[Submission]) -> None:
        self.told += served


class Clients:
    """A database, and receivers whose submissions count in it."""

    def __init__(self, seed: int = 0) -> None:
        self.machine = SimEnv(seed)
        self.database: Database = open_database("/db", env=self.machine)
        self.database.add(b"count")
        self.receivers = Noting(), Noting()
        self.sent: list[Submission] = []

    def submit(self, count: int) -> None:
        for number in range(count):
            batch = WriteBatch()
            batch.merge(self.database.id, b"count", self.database.add_head + b"1")
            receiver = self.receivers[number % 2]
            self.sent.append(Submission(receiver, batch, None, (self.database.id,)))
            self.database.submit(self.sent[-1])

    def wait(self) -> None:
        """Return when everybody was told of all that was handed in."""
        deadline = self.machine.monotonic() + SECONDS_MAX
        while len(self.told) < len(self.sent):
            assert self.machine.monotonic() < deadline, "somebody waits without end"
            self.machine.sleep(1e-3)

    @property
    def told(self) -> list[Submission]:
        return [submission for receiver in self.receivers for submission in receiver.told]

    def check(self, *, failed: bool) -> None:
        """All were told once of what is so, and those that come later are served."""
        self.wait()
        struck = [submission for submission in self.sent if submission.error is not None]
        assert {MemoryError} >= {type(submission.error) for submission in struck}
        assert bool(struck) == failed
        self.submit(3)
        self.wait()
        assert [None] * 3 == [submission.error for submission in self.sent[-3:]]
        assert sorted(map(id, self.sent)) == sorted(map(id, self.told))
        self.database.close()
        assert [] == self.machine.unreturned()

    def counted(self) -> int:
        with open_database("/db", env=self.machine) as again:
            return int(again[b"count"]) - 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_thread_that_has_no_memory_to_take_goes_on(
    monkeypatch: pytest.MonkeyPatch, seed: int, after: bool
) -> None:
    clients = Clients(seed)
    struck = once(monkeypatch, Committer, "_take", after=after)
    clients.submit(6)
    clients.check(failed=False)
    assert struck
    assert "engine.committer_without_memory" in marks_seen()
    assert len(clients.sent) == clients.counted()


@pytest.mark.parametrize("seed", SEEDS)
def test_commits_without_memory_for_a_place_in_the_queue_are_told_so(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    clients = Clients(seed)
    struck = once(monkeypatch, write_path, "_Waiter")
    clients.submit(6)
    clients.check(failed=True)
    assert struck
    done = [submission for submission in clients.sent if submission.error is None]
    assert len(done) == clients.counted()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_commits_of_which_it_is_not_known_whether_they_were_done_are_not_done_again(
    monkeypatch: pytest.MonkeyPatch, seed: int, after: bool
) -> None:
    clients = Clients(seed)
    struck = once(monkeypatch, WritePath, "commit_for_others", after=after)
    clients.submit(6)
    clients.check(failed=True)
    assert struck
    failed = sum(submission.error is not None for submission in clients.sent)
    assert len(clients.sent) - (0 if after else failed) == clients.counted()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_one_error_does_for_all_when_there_is_no_memory_for_others(
    monkeypatch: pytest.MonkeyPatch, seed: int, after: bool
) -> None:
    """And where there is none to tell them that, they hear of this."""

    class RefusalError(DatabaseClosedError):
        lacks = True

        def __init__(self, *given: object) -> None:
            if given and RefusalError.lacks:
                raise MemoryError
            super().__init__(*given)

    clients = Clients(seed)
    refusal = RefusalError()
    refusal.args = ("refused",)

    def refuse(path: WritePath, *given: object) -> None:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr(WritePath, "_run", refuse)
        if after:
            once(patched, write_path, "copy_error", after=after)
        clients.submit(6)
        clients.wait()
    kinds = {type(submission.error) for submission in clients.sent}
    assert {RefusalError, MemoryError} >= kinds if after else {RefusalError} == kinds
    assert "engine.error_shared" in marks_seen()
    clients.submit(2)
    clients.wait()
    assert [None] * 2 == [submission.error for submission in clients.sent[-2:]]
    clients.database.close()


def _refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(crew: Crew, *given: object) -> None:
        crew._env.sleep(1e-3)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Crew, "submit", refuse)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["_put_back", "_finish"])
def test_those_that_counted_on_a_thread_hear_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, seed: int, name: str
) -> None:
    """However little memory there is to tell them."""
    clients = Clients(seed)
    outcomes: list[BaseException] = []

    def submit() -> None:
        try:
            clients.submit(1)
        except RuntimeError as error:
            outcomes.append(error)

    with monkeypatch.context() as patched:
        _refuse_threads(patched)
        struck = once(patched, Committer, name)
        tasks = [clients.machine.spawn(f"{number}", submit) for number in range(4)]
        for task in tasks:
            task.join()
    assert struck
    assert "engine.refusal_again" in marks_seen()
    told = clients.told
    assert outcomes
    assert 4 == len(outcomes) + len(told)
    assert {RuntimeError} >= {type(submission.error) for submission in told}
    clients.sent[:] = told
    clients.submit(2)
    clients.wait()
    clients.database.close()
    assert 2 == clients.counted()
