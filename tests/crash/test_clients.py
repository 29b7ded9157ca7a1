"""Several clients at once: whatever the schedule, a crash leaves a prefix of the order of the log,
with everything in it that was acknowledged as durable.
"""

import pytest

from holdfast.testing.clients import Change, ClientHistory
from holdfast.testing.crash import Options, record, run
from holdfast.testing.mutants import without
from holdfast.testing.oracle import ABSENT, DEFAULT, State, WorkloadError
from holdfast.testing.workload import workload
from tests.unit.testing.broken import do_not_validate

SEEDS = range(1, 5)


def put(key: bytes) -> Change:
    def change(state: State) -> None:
        state[DEFAULT][key] = b"1"

    return change


def test_the_history_is_in_the_order_of_the_log() -> None:
    history = ClientHistory()
    history.acknowledge_all(())
    commits = [history.begin(put(key)) for key in (b"a", b"b", b"c")]
    for commit, seq in zip(commits, (7, 3, 5), strict=True):
        history.end(commit, seq, is_durable=commit == 2)
    ordered, lower, upper = history.settled()
    assert [b"b", b"c", b"a"] == list(ordered.state[DEFAULT])
    # Before the database was acknowledged; when it was; when "c" was, and with it "b" before it.
    assert [ABSENT, 0, 2] == [lower(count) for count in (ABSENT, 0, 1)]
    # With "a" alone no prefix but the empty one can be found; nor with "a" and "b" that of "c".
    assert [0, 0, 1, 3] == [upper(count) for count in (0, 1, 2, 3)]


def test_a_commit_that_never_returned_is_named() -> None:
    history = ClientHistory()
    history.begin(put(b"a"))
    with pytest.raises(WorkloadError, match="never returned"):
        history.settled()


@pytest.mark.parametrize("name", ["clients", "tasks"])
def test_clients_run_the_same_every_time_and_otherwise_with_another_seed(name: str) -> None:
    one, same, other = (record(workload(name, seed)) for seed in (5, 5, 6))
    assert one.operations == same.operations != other.operations
    assert [(m.lower, m.upper) for m in one.moments] == [(m.lower, m.upper) for m in same.moments]


@pytest.mark.parametrize("seed", SEEDS)
def test_clients_overlap_and_their_bounds_rise(seed: int) -> None:
    recording = record(workload("clients_large", seed))
    bounds = [(moment.lower, moment.upper) for moment in recording.moments]
    assert all(lower <= upper for lower, upper in bounds)
    assert sorted(bounds) == bounds
    assert bounds[-1] == (recording.history.submitted,) * 2
    # Several clients lead; how many depends on the schedule.
    tasks = {done.task for done in recording.operations if done.site == "wal.record.sync"}
    assert len(tasks) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clients", "tasks"])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_crash_of_several_clients_is_survived(name: str, seed: int) -> None:
    options = Options(depth=2, limit=250, nested_sample=1, cover=True)
    outcome = run(name, seed=seed, options=options)
    assert not outcome.failures, outcome.failures
    assert outcome.keys_covered == outcome.keys_seen


@pytest.mark.parametrize("seed", SEEDS)
def test_asyncio_tasks_share_syncs(seed: int) -> None:
    recording = record(workload("tasks", seed))
    syncs = [done for done in recording.operations if done.site == "wal.record.sync"]
    commits = recording.history.submitted
    assert len(syncs) < commits
    # None of them is made by a loop: the first three tasks are the main one and the two loops.
    maintenance = {0}
    assert {done.task for done in syncs} - maintenance


@pytest.mark.parametrize("name", ["clients", "tasks"])
def test_an_acknowledgement_without_a_sync_is_noticed_with_clients(name: str) -> None:
    options = Options(depth=1, failures_max=1000)
    outcome = run(name, options=options, wrap=without(("sync", "wal.record.sync")))
    complaints = [line for failure in outcome.failures for line in failure.complaints]
    assert any("was acknowledged as durable" in line for line in complaints)


@pytest.mark.parametrize("name", ["clients", "tasks"])
def test_clients_notice_transactions_that_are_not_validated(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Two that read the same counter and both commit: the counter is not what the log says."""
    do_not_validate(monkeypatch)
    noticed = 0
    for seed in range(8):
        try:
            record(workload(name, seed))
        except WorkloadError as error:
            noticed += "counter" in str(error)
    assert noticed
