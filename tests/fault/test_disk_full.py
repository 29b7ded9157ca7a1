"""A disk that is full for a while: calls are refused, nothing is lost, and work goes on after it.

The disk holds a bounded number of bytes. It gets full before each step of the scenario in turn, or
is too small for the scenario from the start. A full disk is never poison.
"""

from __future__ import annotations

import errno

import pytest

import holdfast
from holdfast.env import FaultEnv, FaultRule
from tests.fault.client import (
    FOLDER,
    TINY,
    BoundedEnv,
    Client,
    check_found,
    judge,
    judge_crash,
    machine_switched_off,
)
from tests.fault.scenario import first_life, second_life, settle


def used_bytes(machine: BoundedEnv) -> int:
    return sum(machine.file_size(f"{FOLDER}/{name}") for name in machine.list_dir(FOLDER))


def fill_before(steps: list, at: int, room: int, *, seed: int = 1, lift_after: int = 1) -> Client:
    """Run steps on a disk that has `room` left from step `at` on, for `lift_after` steps."""
    machine = BoundedEnv(seed)
    env = FaultEnv(machine)
    client = Client(env)
    with machine_switched_off(machine, client):
        assert client.open(TINY, create=True)
        for number, step in enumerate(steps):
            if number == at:
                env.capacity_bytes = used_bytes(machine) + room
            if number == at + lift_after:
                env.capacity_bytes = None
                full = len(client.errors)
            step(client)
            assert client.database is not None
            assert not client.database.stats().poisoned
            if at <= number < at + lift_after:
                judge_crash(machine, client.acceptable())
        assert not [error for error in client.errors[full:]], "there was room again"
        assert client.close()
        check_found(judge(machine), [client.state])
    return client


STEPS = first_life()


@pytest.mark.parametrize("room", [0, 100, 700])
def test_the_disk_gets_full_before_each_step(room: int) -> None:
    refused = 0
    for at in range(len(STEPS) - 1):
        client = fill_before(STEPS, at, room)
        assert all(isinstance(error, holdfast.DiskFullError) for error in client.errors)
        refused += len(client.errors)
    assert refused > 0


def test_the_disk_is_full_for_ten_steps() -> None:
    for at in range(0, len(STEPS) - 10, 2):
        client = fill_before(STEPS, at, 300, lift_after=10)
        assert all(isinstance(error, holdfast.DiskFullError) for error in client.errors)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(2, 6))
def test_the_disk_gets_full_with_any_room(seed: int) -> None:
    for room in (0, 1, 30, 64, 80, 128, 250, 500, 1000, 2000, 4096, 5000, 9000):
        for lift_after in 1, 3, 20:
            for at in range(len(STEPS) - lift_after):
                fill_before(STEPS, at, room, seed=seed, lift_after=lift_after)


def test_a_disk_that_is_too_small_from_the_start() -> None:
    """Whatever its size is, no call hangs, and with a larger disk everything goes on."""
    for capacity in [*range(0, 6_000, 500), *range(6_000, 60_000, 2_000)]:
        machine = BoundedEnv(1)
        env = FaultEnv(machine, capacity_bytes=capacity)
        client = Client(env)
        with machine_switched_off(machine, client):
            if not client.open(TINY, create=True):
                assert isinstance(client.errors[-1], holdfast.DiskFullError)
                judge_crash(machine, client.unknown, may_be_absent=True)
                env.capacity_bytes = None
                client.errors.clear()
                assert client.open(TINY, create=True)
            for step in STEPS:
                step(client)
            judge_crash(machine, client.acceptable())
            env.capacity_bytes = None
            refused = len(client.errors)
            for step in [*second_life(), settle]:
                step(client)
            assert len(client.errors) == refused
            assert not client.database.stats().poisoned
            assert client.close()
            check_found(judge(machine), [client.state])


@pytest.mark.parametrize("room", [0, 2_000, 5_000, 9_000])
def test_opens_that_find_no_room_leave_nothing_behind(room: int) -> None:
    """A full disk must not get fuller with every attempt to open the database on it."""
    machine = BoundedEnv(1)
    env = FaultEnv(machine)
    client = Client(env)
    with machine_switched_off(machine, client):
        assert client.open(TINY, create=True)
        for step in STEPS:
            step(client)
        client.database.put_many({b"more %02d" % n: b"x" * 300 for n in range(40)})
        client.state["default"].update({b"more %02d" % n: b"x" * 300 for n in range(40)})
        env.add(FaultRule(site="table.*", error=errno.ENOSPC, times=None))
        env.add(FaultRule(site="manifest.*", error=errno.ENOSPC, times=None))
        client.close()
        env.clear()
        env.capacity_bytes = used_bytes(machine) + room
        sizes = [used_bytes(machine)]
        for _ in range(6):
            with pytest.raises(holdfast.DiskFullError):
                holdfast.open(FOLDER, env=env)
            sizes.append(used_bytes(machine))
        assert max(sizes) == sizes[0], sizes
        env.capacity_bytes = None
        check_found(judge(machine), [client.state])
