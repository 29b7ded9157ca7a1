"""Cut the power after every operation of every workload, with lost, torn and reordered writes, and
again inside each recovery; reopen; judge.

The suite runs a state of every boundary and of every key (call site, class, depth) that is seen,
and a seeded sample of the others.
`HOLDFAST_CRASH=deep` runs all of them, which takes hours; so does `./dev crash`.
"""

import os
from dataclasses import replace

import pytest

from holdfast.testing.crash import Explorer, Options, Outcome, Verdicts, run, same_machine
from holdfast.testing.workload import CANONICAL, SECTORS, Workload, disk_of, workload

pytestmark = pytest.mark.slow

IS_DEEP = os.environ.get("HOLDFAST_CRASH") == "deep"
SAMPLE = Options(depth=2, limit=500, nested_sample=1, cover=True)
NESTED_SAMPLE = Options(depth=2, limit=300, nested_sample=None)
SEEDS_OF_MIXED = (1, 2, 3)
SECTOR_SAMPLE = Options(depth=2, limit=150, nested_sample=0, cover=True)


def missed(outcome: Outcome) -> list[tuple[str, str, int]]:
    return sorted(outcome.keys_seen - outcome.keys_covered)


def explained(outcome: Outcome) -> str:
    return "\n".join(
        f"{failure.replay}\n  {'; '.join(failure.complaints)}" for failure in outcome.failures
    )


@pytest.mark.parametrize("name", CANONICAL)
def test_every_crash_of_a_workload_is_survived(name: str) -> None:
    outcome = run(name, options=Options(depth=2) if IS_DEEP else SAMPLE)
    print(outcome)
    assert not outcome.failures, explained(outcome)
    assert not missed(outcome)
    assert len(outcome.crashed_at) == outcome.boundaries > 30
    assert outcome.nested > 30


@pytest.mark.parametrize("name", ["sync_puts", "manifest_rotation"])
def test_every_crash_inside_a_recovery_is_survived(name: str) -> None:
    outcome = run(name, options=Options(depth=2) if IS_DEEP else NESTED_SAMPLE)
    print(outcome)
    assert not outcome.failures, explained(outcome)
    assert outcome.nested > 250


@pytest.mark.parametrize("seed", SEEDS_OF_MIXED)
def test_every_crash_of_steps_drawn_by_a_seed_is_survived(seed: int) -> None:
    outcome = run("mixed", seed=seed, options=Options(depth=2) if IS_DEEP else SAMPLE)
    print(outcome)
    assert not outcome.failures, explained(outcome)


@pytest.mark.parametrize("name", ["sync_puts", "keyspaces"])
def test_every_crash_on_ext4_is_survived(name: str) -> None:
    options = Options(depth=2, profile="ext4-ordered", limit=None if IS_DEEP else 200)
    outcome = run(name, options=options)
    print(outcome)
    assert not outcome.failures, explained(outcome)


@pytest.mark.parametrize("name", SECTORS)
def test_every_crash_without_powersafe_overwrite_is_survived_with_aligned_records(
    name: str,
) -> None:
    """`wal_alignment_bytes` is the sector of the disk, and every record, edit, END record, link and
    clean close is apart from what was synced before.
    """
    sample = Options(depth=2) if IS_DEEP else SECTOR_SAMPLE
    outcome = run(name, options=replace(sample, profile=disk_of(name)))
    print(outcome)
    assert not outcome.failures, explained(outcome)
    assert not missed(outcome)
    assert len(outcome.crashed_at) == outcome.boundaries > 100
    hit = {site for site, kind, _ in outcome.keys_covered if kind == "collateral"}
    assert {"wal.record.write", "wal.segment.link"} <= hit
    # An edit is appended to a sector that holds nothing synced, and an END record fills its own:
    # they put nothing at risk, so that class is one of theirs only beside a record that does.
    assert {"manifest.edit.write", "wal.end.write"} <= {site for site, _, _ in outcome.keys_covered}


@pytest.mark.parametrize(
    ("name", "alignment"), [("sectors_512", 8), ("sectors_512", 256), ("sectors_4096", 2048)]
)
def test_with_less_than_the_sector_of_such_a_disk_something_is_lost(
    name: str, alignment: int
) -> None:
    """The same workload on the same disk: it is the alignment that the crashes are survived by."""
    work = workload(name)
    assert isinstance(work, Workload)
    work = replace(work, settings=replace(work.settings, wal_alignment_bytes=alignment))
    options = Options(depth=1, failures_max=1, classes=("collateral",), profile=disk_of(name))
    outcome = Explorer(work, options, same_machine).run()
    assert outcome.failures


@pytest.mark.parametrize("name", ["flush", "keyspaces"])
def test_a_run_that_covers_reaches_every_boundary_and_key(name: str) -> None:
    outcome = run(name, options=Options(depth=2, limit=1, nested_sample=0, cover=True))
    print(outcome)
    assert not outcome.failures, explained(outcome)
    assert not missed(outcome)
    assert len(outcome.crashed_at) == outcome.boundaries
    assert {1, 2} == {depth for _, _, depth in outcome.keys_seen}
    assert not outcome.is_complete


def test_a_run_that_is_full_still_compares_the_states_whose_content_it_knows() -> None:
    some = run("sync_puts", options=Options(depth=1, limit=40))
    everything = run("sync_puts", options=Options(depth=1))
    assert 40 == some.distinct < everything.distinct
    assert some.distinct < some.states < everything.states


def test_what_was_judged_before_is_compared_with_the_bounds_of_each_run() -> None:
    verdicts = Verdicts()
    first = Explorer(workload("deletes"), Options(depth=1), same_machine, verdicts).run()
    again = Explorer(workload("deletes"), Options(depth=1), same_machine, verdicts)
    recording = again._recording
    recording.moments = [replace(moment, lower=moment.upper) for moment in recording.moments]
    outcome = again.run()
    assert 0 == outcome.distinct
    assert first.states > len(outcome.failures) > 0
    assert "was acknowledged as durable" in outcome.failures[0].complaints[0]


def test_subsets_of_the_power_set_are_one_key() -> None:
    outcome = run("sync_puts", options=Options(depth=1, classes=("power-set",)))
    assert not outcome.failures, explained(outcome)
    assert {"power-set"} == {kind for _, kind, _ in outcome.keys_seen}
    assert outcome.states > 100
