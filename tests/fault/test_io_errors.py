"""For k = 1, 2, ...: the k-th call that changes the disk fails, until the scenario is untouched.

After every run: each error was told to the client or is one of a short list that the database
handles itself; reads never stop; no acknowledged commit is lost and no refused one comes back, in
the same process, after a crash and after a reopen; nothing waits for ever and nothing is left open.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from holdfast.env import (
    CrashPoint,
    CrashState,
    Fault,
    FaultEnv,
    FaultRule,
    Operation,
    lose_writes,
    revert_writes,
    take_effect,
)
from holdfast.env.fault import Effect
from tests.fault.client import (
    TINY,
    BoundedEnv,
    Client,
    MutationRule,
    State,
    booted,
    check_found,
    judge,
    judge_crash,
    machine_switched_off,
)
from tests.fault.scenario import first_life, run_after_crash, run_life, run_lives

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NAMED_BY_NOBODY = (
    "ingest.write.abandon",
    "table.write.abandon",
    "table.discard.unlink",
    "wal.segment.unlink",
)
"""What may be removed although the database is poisoned: files that were never part of it, and
segments that a durable edit gave up.
"""


def is_handled_inside(fault: Fault) -> bool:
    """Return whether the database handles this failure itself, so that no call need report it."""
    if fault.kind == "unlink":
        # The file stays, and the next open removes it.
        return True
    if fault.error in FULL:
        # Background work tries again: flushes and compactions, the next segment, a new manifest.
        return fault.site.startswith(("table.", "wal.segment.", "manifest."))
    return False


Lives = Callable[[Client, Callable[[], None]], None]


def run_with(
    *rules: FaultRule,
    seed: int = 1,
    lives: Lives = run_lives,
    crashed: tuple[CrashState, list[State]] | None = None,
) -> int:
    """Run lives under rules, from nothing or from what a crash left, and judge them.

    Return how many faults there were.
    """
    machine = BoundedEnv(seed) if crashed is None else booted(crashed[0])
    env = FaultEnv(machine, rules)
    client = Client(env)
    if crashed is not None:
        client.states = list(crashed[1])

    def at_end() -> None:
        judge_crash(machine, client.acceptable())

    with machine_switched_off(machine, client):
        lives(client, at_end)
        assert not machine.unreturned(), machine.unreturned()
        is_absent = not client.states
        at_end() if client.states else judge_crash(machine, client.unknown, may_be_absent=True)
        env.clear()
        acceptable = client.acceptable()
        check_found(judge(machine), acceptable, may_be_absent=is_absent)
        reported = bool(client.errors)
        assert reported or all(map(is_handled_inside, env.faults)), env.faults
    return env.injected


def run_all(make: Callable[[int], FaultRule], **options) -> int:
    """Run with the rules for 1, 2, ... until one strikes nothing; return how many struck."""
    k = 1
    while run_with(make(k), **options):
        k += 1
    return k - 1


CODES = {code: errno.errorcode[code] for code in (errno.EIO, errno.ENOSPC)}
OTHER_CODES = {
    code: errno.errorcode[code]
    for code in (errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.EINTR)
}


@pytest.mark.parametrize("code", CODES, ids=CODES.values())
def test_the_kth_call_fails_once(code: int) -> None:
    assert run_all(lambda k: MutationRule(nth=k, error=code)) > 150


@pytest.mark.parametrize("code", CODES, ids=CODES.values())
def test_every_call_fails_from_the_kth_on(code: int) -> None:
    assert run_all(lambda k: MutationRule(nth=3 * k - 2, times=None, error=code)) > 50


@pytest.mark.parametrize("effect", [lose_writes, revert_writes])
def test_the_kth_sync_fails(effect: Effect) -> None:
    """The page cache of ext4 and XFS keeps what the disk lost, that of Btrfs forgets it too."""
    assert run_all(lambda k: FaultRule(kind="sync", nth=k, effect=effect)) > 50


@pytest.mark.parametrize("code", CODES, ids=CODES.values())
def test_the_kth_write_is_cut_short(code: int) -> None:
    assert run_all(lambda k: FaultRule(kind="write", nth=k, error=code, partial=90)) > 40


@pytest.fixture(scope="module")
def crashed() -> tuple[CrashState, list[State]]:
    """What a killed process leaves at the end of the first life, and what may be found then."""
    machine = BoundedEnv(1)
    client = Client(machine)
    with machine_switched_off(machine, client):
        assert client.open(TINY, create=True)
        for step in first_life():
            step(client)
        return CrashPoint(machine).state("all"), client.acceptable()


@pytest.mark.parametrize("code", CODES, ids=CODES.values())
def test_the_kth_call_after_a_crash_fails(
    crashed: tuple[CrashState, list[State]], code: int
) -> None:
    run = {"lives": run_after_crash, "crashed": crashed}
    assert run_all(lambda k: MutationRule(nth=k, error=code), **run) > 30
    for effect in lose_writes, revert_writes:
        assert run_all(lambda k: FaultRule(kind="sync", nth=k, effect=effect), **run) > 10


@pytest.mark.deep
@pytest.mark.parametrize("code", OTHER_CODES, ids=OTHER_CODES.values())
def test_the_kth_call_fails_with_another_error(code: int) -> None:
    assert run_all(lambda k: MutationRule(nth=k, error=code)) > 150


@pytest.mark.deep
@pytest.mark.parametrize("code", CODES, ids=CODES.values())
def test_every_call_fails_from_any_call_on(code: int) -> None:
    assert run_all(lambda k: MutationRule(nth=k, times=None, error=code)) > 150


@pytest.mark.deep
@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
@pytest.mark.parametrize("effect", [lose_writes, revert_writes, take_effect])
def test_the_kth_sync_and_others_fail(effect: Effect, times: int | None) -> None:
    assert run_all(lambda k: FaultRule(kind="sync", nth=k, times=times, effect=effect)) > 50


@pytest.mark.deep
@pytest.mark.parametrize("code", CODES, ids=CODES.values())
@pytest.mark.parametrize("partial", [1, 8, 40, 79, 81, 300])
def test_the_kth_write_is_cut_anywhere(code: int, partial: int) -> None:
    assert run_all(lambda k: FaultRule(kind="write", nth=k, error=code, partial=partial)) > 40


@pytest.mark.deep
@pytest.mark.parametrize("code", CODES, ids=CODES.values())
@pytest.mark.parametrize("seed", range(2, 12))
def test_the_kth_call_fails_under_other_schedules(seed: int, code: int) -> None:
    assert run_all(lambda k: MutationRule(nth=k, error=code), seed=seed) > 150


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1, 6))
def test_calls_fail_at_random(seed: int) -> None:
    for number in range(200):
        rules = [
            MutationRule(times=None, chance=0.03, seed=1000 * seed + number, error=code)
            for code in (errno.ENOSPC, errno.EIO)[: 1 + number % 2]
        ]
        run_with(*rules, seed=seed)


def test_nothing_that_may_be_needed_is_removed_after_a_failed_sync() -> None:
    k, struck = 1, 1
    while struck:
        machine = BoundedEnv(1)
        env = FaultEnv(machine, [FaultRule(kind="sync", nth=k, effect=lose_writes)])
        client = Client(env)
        poisoned_at: list[int] = []

        def note(operation: Operation) -> None:
            database = client.database
            if not poisoned_at and database is not None and database._engine.is_poisoned:
                poisoned_at.append(operation.number)

        machine.observer = note
        with machine_switched_off(machine, client):
            if client.open(TINY, create=True):
                run_life(client, first_life())
        struck = env.injected
        if poisoned_at:
            late = [op for op in machine.op_log[poisoned_at[0] :] if op.kind == "unlink"]
            assert not [op for op in late if op.site not in NAMED_BY_NOBODY], (k, env.faults, late)
        k += 1
