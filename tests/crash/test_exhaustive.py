"""All workloads of up to two operations, cut off everywhere; `./dev crash --exhaustive 4` and
`holdfast torture` run longer ones.
"""

import pytest

from holdfast.testing.crash import Options, Outcome, Verdicts, record, replay
from holdfast.testing.crash_command import main
from holdfast.testing.exhaustive import count, explore, letters_of
from holdfast.testing.mutants import without
from holdfast.testing.torture_crash import ExhaustivePart
from holdfast.testing.workload import ALPHABET, EXHAUSTIVE, workload


@pytest.mark.slow
def test_every_crash_of_every_workload_of_up_to_two_operations_is_survived() -> None:
    verdicts, total, boundaries = Verdicts(), Outcome("all", 0), 0
    for item in range(count(2)):
        outcome = explore(item, verdicts)
        assert not outcome.failures, outcome.failures
        boundaries += outcome.boundaries
        total.add(outcome)
    print(total)
    assert boundaries == len(total.crashed_at)
    assert total.keys_covered == total.keys_seen
    assert total.is_complete
    assert total.states > 1500 > total.distinct


def test_every_workload_has_one_number() -> None:
    assert 1 + 8 + 64 + 512 + 4096 == count(4)
    every = [letters_of(item) for item in range(count(3))]
    assert "" == every[0]
    assert list(ALPHABET) == every[1:9]
    assert "pp" == every[9]
    assert len(every) == len(set(every))
    assert sorted(every, key=len) == every
    with pytest.raises(IndexError):
        letters_of(-1)
    with pytest.raises(KeyError):
        workload(EXHAUSTIVE + "x")


@pytest.mark.parametrize("letters", ["pbfo", "uupc", "bodf", "rfcp"])
def test_a_workload_begins_with_the_operations_of_the_one_without_its_last(letters: str) -> None:
    whole, part = (record(workload(EXHAUSTIVE + name)) for name in (letters, letters[:-1]))
    assert whole.operations[: len(part.operations)] == part.operations
    assert whole.steps[:-1] == part.steps
    assert len(part.operations) == whole.steps[-1]
    for one, other in zip(part.moments, whole.moments[: whole.steps[-1] + 1], strict=True):
        assert (one.index, one.lower, one.upper) == (other.index, other.lower, other.upper)


def test_a_broken_engine_is_noticed_and_its_state_replays() -> None:
    broken = without(("sync", "wal.record.sync"))
    part = ExhaustivePart(0, broken)
    part.replay("1")
    assert part.failures
    options = Options(depth=1, failures_max=1000)
    failures = explore(1, Verdicts(), options, wrap=broken).failures
    failure = next(one for one in failures if "acknowledged as durable" in one.complaints[0])
    assert EXHAUSTIVE + "p" == failure.workload
    assert failure.complaints[0] in replay(failure.workload, 0, failure.path, wrap=broken)[1]
    assert [] == replay(failure.workload, 0, failure.path)[1]


def test_a_slice_is_run_by_item_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["--exhaustive", "2", "--items", "9:12", "--depth", "1"])
    printed = capsys.readouterr().out
    assert "workloads 9 to 12 of 73" in printed
    assert "failures  0  complete" in printed
    part = ExhaustivePart(0, lambda machine: machine, first=9)
    for _ in range(3):
        part.step()
    assert (9, 12) == (part.figures()["first item"], part.figures()["next item"])
    assert f"states {part.figures()['crash states run']:8}" in printed
