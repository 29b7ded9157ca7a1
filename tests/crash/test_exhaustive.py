"""All workloads of up to two operations, cut off everywhere; `./dev crash --exhaustive 4` and
`holdfast torture` run longer ones.
"""

from typing import Any

import pytest

from holdfast.testing import workload_merges
from holdfast.testing.crash import Options, Outcome, Verdicts, record, replay
from holdfast.testing.crash_command import main
from holdfast.testing.exhaustive import count, explore, letters_of, workloads
from holdfast.testing.mutants import without
from holdfast.testing.oracle import State, WorkloadError
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
    plain = 1 + 8 + 64 + 512 + 4096
    merging = 9 + 81 + 729 + 6561 - (plain - 1)
    unsynced = 10 + 100 + 1000 - (9 + 81 + 729)
    assert plain + merging + unsynced == count(4) == 7672
    every = [letters_of(item) for item in range(count(4))]
    assert "" == every[0]
    assert list(ALPHABET) == [*every[1:9], "m", "n"]
    assert "pp" == every[9]
    assert len(every) == len(set(every))
    for part in (every[:plain], every[plain : plain + merging], every[plain + merging :]):
        assert sorted(part, key=len) == part
    assert {"m", "n"}.isdisjoint("".join(every[:plain]))
    assert all("m" in word and "n" not in word for word in every[plain : plain + merging])
    short = [letters_of(item, 2) for item in range(count(2))]
    assert every[:73] == short[:73]
    assert set(short) == {word for word in every if len(word) < 3 - word.count("n")}
    assert set(every) >= {word[:-1] for word in every}, "each begins with another one"
    with pytest.raises(IndexError):
        letters_of(-1)
    with pytest.raises(KeyError):
        workload(EXHAUSTIVE + "x")


@pytest.mark.parametrize("letters", ["pbfo", "uupc", "bodf", "rfcp", "mufm", "nmo"])
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
    assert "workloads 9 to 12 of 92" in printed
    assert "failures  0  complete" in printed
    part = ExhaustivePart(0, lambda machine: machine, first=9)
    for _ in range(3):
        part.step()
    assert (9, 12) == (part.figures()["first item"], part.figures()["next item"])
    assert f"states {part.figures()['crash states run']:8}" in printed


MERGED = ("m", "mm", "n", "nm", "mfm", "mom", "pmo", "mcm", "dm", "rn", "nfn", "bmf")


def test_every_crash_of_workloads_that_merge_is_survived() -> None:
    verdicts, total = Verdicts(), Outcome("merges", 0)
    for letters in MERGED:
        outcome = explore(workloads().index(letters), verdicts)
        assert not outcome.failures, outcome.failures
        total.add(outcome)
    assert total.is_complete
    assert total.states > 200


@pytest.mark.parametrize("letters", ["m", "n", "mf"])
def test_an_operand_too_many_is_noticed(monkeypatch: pytest.MonkeyPatch, letters: str) -> None:
    real = workload_merges.merged

    def once(state: State, keyspace: str, key: bytes, *merge: Any) -> None:
        if key not in state[keyspace]:
            real(state, keyspace, key, *merge)

    # An oracle that leaves the second operand out is as good as an engine that counts one twice.
    monkeypatch.setattr(workload_merges, "merged", once)
    item = workloads().index(letters + letters[0])
    try:
        noticed = bool(explore(item, Verdicts()).failures)
    except WorkloadError:
        noticed = True
    assert noticed
