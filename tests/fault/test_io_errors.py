"""For k = 1, 2, ...: the k-th call that changes the disk fails, until the scenario passes untouched.

After every run: each error was told to the client or is one of a short list that the database
handles itself; reads never stop; no acknowledged commit is lost and no refused one comes back, in
the same process, after a crash and after a reopen; nothing waits for ever and nothing is left open.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from holdfast.env import FaultEnv, FaultRule, lose_writes, revert_writes
from tests.fault.client import (
    BoundedEnv,
    Client,
    MutationRule,
    judge,
    judge_crash,
    machine_switched_off,
)
from tests.fault.scenario import run_lives

FULL = (errno.ENOSPC, errno.EDQUOT)


def is_handled_inside(fault) -> bool:
    """Return whether the database handles this failure itself, so that no call need report it."""
    if fault.kind == "unlink":
        # The file stays, and the next open removes it.
        return True
    if fault.error in FULL:
        # Background work tries again: flushes and compactions, the next segment, a new manifest.
        return fault.site.startswith(("table.", "wal.segment.", "manifest."))
    return False


def run_with(rule: FaultRule, seed: int = 1) -> int:
    """Run the scenario under one rule and judge it. Return how many faults there were."""
    machine = BoundedEnv(seed)
    env = FaultEnv(machine, [rule])
    client = Client(env)

    def at_end() -> None:
        judge_crash(machine, client.acceptable())

    with machine_switched_off(machine, client):
        run_lives(client, at_end)
        assert not machine.unreturned(), machine.unreturned()
        if not client.states:
            assert client.errors
            judge_crash(machine, client.unknown, may_be_absent=True)
        env.clear()
        found = judge(machine, client.acceptable(), may_be_absent=not client.states)
        if client.states:
            assert found is not None
        reported = bool(client.errors)
        assert reported or all(map(is_handled_inside, env.faults)), env.faults
    return env.injected


def run_all(make: Callable[[int], FaultRule], step: int = 1) -> int:
    """Run with the rules for 1, 2, ... until one of them strikes nothing; return how many struck."""
    k = 1
    while run_with(make(k)):
        k += step
    return k - 1


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_the_kth_call_fails(code: int, times: int | None) -> None:
    assert run_all(lambda k: MutationRule(nth=k, times=times, error=code)) > 100
