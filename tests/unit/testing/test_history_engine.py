"""The engine behind the checkers of histories: no anomaly in what its clients see, whatever the
schedule, and whatever happens to the machine; and each of several engines that are broken here is
noticed. The same is done at length by `./dev histories --engine`.
"""

from collections import Counter
from pathlib import Path

import pytest

from holdfast.engine.snapshot import SnapshotRegistry
from holdfast.testing import histories, histories_engine
from holdfast.testing.broken_engines import PROMISED
from holdfast.testing.history_machine import (
    ISOLATIONS,
    POLICIES,
    WAYS,
    Trial,
    draw_trial,
    run_trial,
)
from holdfast.testing.history_real import RealRun, run_real
from holdfast.testing.judge import judge
from holdfast.testing.oracle import WorkloadError
from holdfast.txn.keyspace import TransactionKeyspace
from tests.unit.testing.broken import (
    do_not_look_into_groups,
    do_not_validate,
    read_stale_snapshots,
)

KINDS = ("append", "rmw")


def violated(trial):
    return PROMISED[trial.isolation] in judge(run_trial(trial).history).violated()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", POLICIES)
def test_no_anomaly_on_a_machine_with_faults(kind, isolation, way, policy):
    trial = Trial(seed=1, kind=kind, isolation=isolation, way=way, policy=policy, count=200)
    report = judge(run_trial(trial).history)
    assert PROMISED[isolation] not in report.violated(), str(report)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("awaits", [False, True])
def test_no_anomaly_in_this_process(tmp_path: Path, kind, isolation, awaits):
    run = RealRun(seed=2, kind=kind, isolation=isolation, awaits=awaits, slices=2, count=400)
    for part in run_real(run, str(tmp_path / "db")):
        report = judge(part.history)
        assert PROMISED[isolation] not in report.violated(), str(report)
        assert part.happened["open_deletes"] > 0
        assert len(part.history.transactions) >= 380


def test_the_same_seed_gives_the_same_history():
    for seed in range(3):
        trial = draw_trial(seed, 80)
        one, same = run_trial(trial), run_trial(trial)
        assert one.history == same.history
        assert one.happened == same.happened


def test_everything_happens_in_the_trials_that_are_drawn():
    """Where nothing goes wrong nothing is shown."""
    happened = Counter()
    for seed in range(40):
        happened.update(run_trial(draw_trial(seed, 200)).happened)
    assert happened["committed"] > happened["conflicts"] > 200
    rare = ("crashed", "poisoned", "unknown", "too_old", "jumps", "compactions")
    odd = ("undone", "rewritten", "locks")
    assert all(happened[name] > 3 for name in (*rare, *odd)), happened


# The engine is broken on purpose in the following tests; a checker must complain.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_an_engine_that_does_not_validate_is_noticed(monkeypatch, kind, isolation):
    do_not_validate(monkeypatch)
    for seed in range(2):
        assert violated(Trial(seed=seed, kind=kind, isolation=isolation, count=150, jumps=False))


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_does_not_validate_ranges_is_noticed(monkeypatch, kind):
    monkeypatch.setattr(TransactionKeyspace, "ranges_read", lambda _: [])
    trials = [Trial(seed=seed, kind=kind, count=250, jumps=False) for seed in range(8)]
    assert any(map(violated, trials))


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_does_not_look_into_its_group_is_noticed(monkeypatch, kind):
    do_not_look_into_groups(monkeypatch)
    trials = [Trial(seed=seed, kind=kind, count=150, jumps=False) for seed in range(4)]
    assert any(map(violated, trials))


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_drops_live_versions_is_noticed(monkeypatch, kind):
    monkeypatch.setattr(SnapshotRegistry, "live", lambda _: [])
    trials = [
        Trial(seed=seed, kind=kind, count=250, jumps=False, crashes=False, failed_syncs=False)
        for seed in range(6)
    ]
    assert any(map(violated, trials))


def test_an_engine_that_brings_deleted_keys_back_is_noticed(monkeypatch, tmp_path: Path):
    do_not_validate(monkeypatch)
    run = RealRun(seed=2, kind="append", isolation="snapshot", slices=30, count=600)
    with pytest.raises(WorkloadError, match="deleted keys came back"):
        for _ in run_real(run, str(tmp_path / "db")):
            pass


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_an_engine_whose_snapshots_are_stale_is_noticed(monkeypatch, isolation):
    read_stale_snapshots(monkeypatch)
    trials = [
        Trial(seed=seed, isolation=isolation, count=100, crashes=False, failed_syncs=False)
        for seed in range(2)
    ]
    assert all(map(violated, trials))


def test_the_verb_judges_the_engine_and_keeps_what_is_wrong(monkeypatch, tmp_path: Path, capsys):
    for name, size in (("TRIALS", 1), ("SLICES", 1), ("SLICE_TRANSACTIONS", 60)):
        monkeypatch.setattr(histories_engine, name, size)
    piece = histories_engine.do_piece(3)
    assert piece.transactions > 400
    assert not piece.wrong
    monkeypatch.setattr(histories_engine, "collect", lambda progress, *_: progress.total.add(piece))
    assert histories.main(["--engine", "--transactions", "400"]) == 0
    assert f"| all | | | 2 | {piece.transactions:,} | 0 |" in capsys.readouterr().out
    do_not_validate(monkeypatch)
    trial = Trial(seed=1, count=150)
    histories_engine.judge_trial(piece, trial)
    assert histories.main(["--engine", "--keep", str(tmp_path)]) == 1
    assert "G-single" in capsys.readouterr().out
    kept = tmp_path / "machine-1.jsonl"
    assert histories.main(["--check", str(kept)]) == 1


def test_a_run_that_was_cut_off_goes_on_where_it_was(monkeypatch, tmp_path: Path, capsys):
    numbers: list[tuple[int, str | None]] = []

    def do_pieces(function, pieces, jobs, goes_on):
        assert function is histories_engine.do_piece
        for number, folder in pieces:
            if not goes_on():
                return
            numbers.append((number - 7 * histories_engine.PER_SEED, folder))
            row = histories_engine.Row(2, 100, int(number % 5 == 4))
            happened = {"simulated": Counter(crashed=1)}
            yield histories_engine.Piece({"simulated | append | snapshot": row}, happened)

    monkeypatch.setattr(histories_engine, "do_pieces", do_pieces)
    state = tmp_path / "state.json"
    command = ["--engine", "--seed", "7", "--resume", str(state), "--folder", str(tmp_path)]
    assert histories.main([*command, "--transactions", "300"]) == 0
    assert "| all | | | 6 | 300 | 0 |" in capsys.readouterr().out
    # Nothing of an anomaly is forgotten either.
    for _ in range(2):
        assert histories.main([*command, "--transactions", "700"]) == 1
        out = capsys.readouterr().out
        assert "| all | | | 14 | 700 | 1 |" in out
        assert "| crashed | 7 | 0 |" in out
    assert numbers == [(number, str(tmp_path)) for number in range(7)]
    assert histories.main([*command, "--seed", "8"]) == 2
    assert "is of another run" in capsys.readouterr().err
