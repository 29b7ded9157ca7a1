"""Cut the power after every operation of every workload, with lost, torn and reordered writes, and
again inside each recovery; reopen; judge.

The suite runs the first states of every (call site, class) and a seeded sample of the others.
`HOLDFAST_CRASH=deep` runs all of them, which takes hours; so does `./dev crash`.
"""

import os

import pytest

from holdfast.testing.crash import Options, Outcome, run
from holdfast.testing.workload import CANONICAL

pytestmark = pytest.mark.slow

IS_DEEP = os.environ.get("HOLDFAST_CRASH") == "deep"
SAMPLE = Options(depth=2, limit=700, nested_sample=1)
NESTED_SAMPLE = Options(depth=2, limit=300, nested_sample=None)
SEEDS_OF_MIXED = (1, 2, 3)


def missed(outcome: Outcome) -> list[tuple[str, str, int]]:
    return sorted(key for key in outcome.keys_seen - outcome.keys_covered if key[2] == 1)


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
    assert outcome.boundaries > 30
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
