"""Injected errors: when they strike, what still happens, and a disk that fills up."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.env import (
    FaultEnv,
    FaultRule,
    PosixEnv,
    SimEnv,
    crash_states,
    is_disk_full,
    lose_writes,
    revert_writes,
    take_effect,
)


def contents(env: SimEnv) -> dict[str, bytes]:
    return {name: env.open(name).read_at(0, 1 << 20) for name in env.list_dir("/")}


def outcome(call: Callable[[], object]) -> int:
    """Return 0, or the errno of the OSError that `call` raised."""
    try:
        call()
    except OSError as exc:
        assert exc.errno is not None
        return exc.errno
    return 0


def test_without_rules_nothing_fails() -> None:
    env = FaultEnv(SimEnv())
    file = env.create("f", site="create")
    file.write_at(0, b"x", site="write")
    file.sync(site="sync")
    assert 0 == env.injected
    assert b"x" == file.read_at(0, 1)
    assert -1 == file.fileno()


CALLS: dict[str, Callable[[FaultEnv], object]] = {
    "create": lambda env: env.create("new", site="s"),
    "open": lambda env: env.open("f"),
    "rename": lambda env: env.rename("f", "new", site="s"),
    "unlink": lambda env: env.unlink("f", site="s"),
    "make_dir": lambda env: env.make_dir("new", site="s"),
    "list_dir": lambda env: env.list_dir("/"),
    "sync_dir": lambda env: env.sync_dir("/", site="s"),
    "file_size": lambda env: env.file_size("f"),
    "lock_file": lambda env: env.lock_file("f"),
    "read": lambda env: env.file.read_at(0, 1),  # type: ignore[attr-defined]
    "write": lambda env: env.file.write_at(0, b"y", site="s"),  # type: ignore[attr-defined]
    "allocate": lambda env: env.file.allocate(9, written=True, site="s"),  # type: ignore[attr-defined]
    "truncate": lambda env: env.file.truncate(0, site="s"),  # type: ignore[attr-defined]
    "sync": lambda env: env.file.sync(site="s"),  # type: ignore[attr-defined]
    "size": lambda env: env.file.size(),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_of_every_kind_can_fail_and_then_did_nothing(kind: str) -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    env.file = env.create("f", site="create")  # type: ignore[attr-defined]
    env.file.write_at(0, b"x", site="write")  # type: ignore[attr-defined]
    before, count = contents(inner), inner.op_count
    env.add(FaultRule(kind=kind, error=errno.EROFS))
    assert errno.EROFS == outcome(lambda: CALLS[kind](env))
    assert 1 == env.injected
    assert (kind, errno.EROFS) == (env.faults[0].kind, env.faults[0].error)
    assert before == contents(inner) and count == inner.op_count
    assert 0 == outcome(lambda: CALLS[kind](env))
    assert 1 == env.injected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (FaultRule(), "x....."),
        (FaultRule(nth=3), "..x..."),
        (FaultRule(nth=2, times=3), ".xxx.."),
        (FaultRule(nth=5, times=None), "....xx"),
        (FaultRule(kind="write", site="wal.*", path="*.wal"), "x....."),
        (FaultRule(site="table.*"), "......"),
        (FaultRule(path="/db/1.wal"), "x....."),
        (FaultRule(path="1.wal"), "x....."),
        (FaultRule(path="2.wal"), "......"),
        (FaultRule(kind="sync"), "......"),
        (FaultRule(chance=0.0, times=None), "......"),
    ],
    ids=str,
)
def test_a_rule_strikes_when_it_says(rule: FaultRule, expected: str) -> None:
    env = FaultEnv(SimEnv())
    env.make_dir("/db", site="make_dir")
    file = env.create("/db/1.wal", site="create")
    env.add(rule)
    codes = [outcome(lambda: file.write_at(0, b"x", site="wal.append.write")) for _ in range(6)]
    assert expected == "".join("x" if code else "." for code in codes)
    assert {0, errno.EIO} >= set(codes)


def test_chance_is_decided_by_path_and_count_and_seed() -> None:
    def strikes(seed: int) -> list[bool]:
        rule = FaultRule(chance=0.5, times=None, seed=seed)
        return [rule.strikes(count, "f") for count in range(1, 200)]

    assert strikes(1) == strikes(1) != strikes(2)
    assert 60 < sum(strikes(1)) < 140


def test_the_first_rule_that_strikes_decides_and_every_rule_counts() -> None:
    env = FaultEnv(
        SimEnv(),
        [
            FaultRule(kind="write", nth=2, error=errno.EIO),
            FaultRule(nth=2, times=2, error=errno.EROFS),
        ],
    )
    file = env.create("f", site="create")
    codes = [outcome(lambda: file.write_at(0, b"x", site="s")) for _ in range(4)]
    assert [errno.EROFS, errno.EIO, 0, 0] == codes
    env.add(FaultRule(times=None))
    env.clear()
    assert 0 == outcome(lambda: file.write_at(0, b"x", site="s"))
    assert 2 == env.injected


def test_a_write_may_take_effect_in_part() -> None:
    env = FaultEnv(SimEnv(), [FaultRule(kind="write", partial=3)])
    file = env.create("f", site="create")
    assert errno.EIO == outcome(lambda: file.write_at(0, b"abcdef", site="s"))
    assert b"abc" == file.read_at(0, 10)


def test_a_failed_sync_may_have_worked() -> None:
    inner = SimEnv()
    env = FaultEnv(inner, [FaultRule(kind="sync", effect=take_effect)])
    file = env.create("f", site="create")
    env.sync_dir("/", site="sync_dir")
    file.write_at(0, b"x", site="write")
    assert errno.EIO == outcome(lambda: file.sync(site="sync"))
    assert [{"f": b"x"}] == [contents(state.build()) for state in crash_states(inner)]


@pytest.mark.parametrize(("effect", "cached"), [(lose_writes, b"new"), (revert_writes, b"old")])
def test_a_failed_sync_may_lose_the_writes_for_good(
    effect: Callable[..., None], cached: bytes
) -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = env.create("f", site="create")
    file.write_at(0, b"old", site="write")
    file.sync(site="sync")
    env.sync_dir("/", site="sync_dir")
    env.add(FaultRule(kind="sync", effect=effect))
    file.write_at(0, b"new", site="write")
    assert errno.EIO == outcome(lambda: file.sync(site="sync"))
    assert 0 == outcome(lambda: file.sync(site="sync"))
    assert cached == file.read_at(0, 3)
    assert [{"f": b"old"}] == [contents(state.build()) for state in crash_states(inner)]


def test_losing_writes_needs_a_simulated_file(tmp_path: Path) -> None:
    env = FaultEnv(PosixEnv(), [FaultRule(kind="sync", effect=lose_writes)])
    file = env.create(str(tmp_path / "f"), site="create")
    with pytest.raises(TypeError):
        file.sync(site="sync")
    file.close()


def test_a_lying_sync_claims_success_and_does_nothing() -> None:
    inner = SimEnv()
    env = FaultEnv(inner, [FaultRule(kind="sync", error=None, times=None)])
    file = env.create("f", site="create")
    env.sync_dir("/", site="sync_dir")
    file.write_at(0, b"x", site="write")
    file.sync(site="sync")
    assert {"f": b""} in [contents(state.build()) for state in crash_states(inner)]
    assert 1 == env.injected


def test_a_call_with_a_result_cannot_claim_success_and_is_done() -> None:
    env = FaultEnv(SimEnv(), [FaultRule(error=None, times=None)])
    file = env.create("f", site="create")
    assert b"" == file.read_at(0, 1)


def test_a_full_disk_takes_what_fits_and_then_refuses() -> None:
    env = FaultEnv(SimEnv(), capacity_bytes=1000)
    file = env.create("/f", site="create")
    other = env.create("/g", site="create")
    file.write_at(0, b"x" * 600, site="write")
    with pytest.raises(OSError) as caught:
        other.write_at(0, b"y" * 600, site="write")
    assert is_disk_full(caught.value)
    assert b"y" * 400 == other.read_at(0, 1000)
    assert 1 == env.injected
    with pytest.raises(OSError):
        other.allocate(401, written=True, site="allocate")
    file.write_at(0, b"z" * 600, site="write")
    assert 2 == env.injected


def test_room_comes_back() -> None:
    env = FaultEnv(SimEnv(), capacity_bytes=1000)
    file = env.create("f", site="create")
    other = env.create("g", site="create")
    file.allocate(1000, written=True, site="allocate")
    assert errno.ENOSPC == outcome(lambda: other.write_at(0, b"y", site="write"))
    file.truncate(500, site="truncate")
    assert 0 == outcome(lambda: other.write_at(0, b"y" * 500, site="write"))
    env.unlink("f", site="unlink")
    assert 0 == outcome(lambda: other.allocate(1000, written=True, site="allocate"))
    assert errno.ENOSPC == outcome(lambda: other.allocate(1001, written=True, site="allocate"))
    env.capacity_bytes = 2000
    assert 0 == outcome(lambda: other.allocate(1001, written=True, site="allocate"))
    env.capacity_bytes = None
    assert 0 == outcome(lambda: other.allocate(9000, written=True, site="allocate"))
    env.capacity_bytes = 100
    assert 0 == outcome(lambda: other.write_at(8999, b"y", site="write"))
    assert errno.ENOSPC == outcome(lambda: other.write_at(8999, b"yy", site="write"))
    assert 9000 == other.size()


def test_a_full_folder_on_the_real_machine(tmp_path: Path) -> None:
    env = FaultEnv(PosixEnv(), capacity_bytes=100)
    file = env.create(str(tmp_path / "f"), site="create")
    env.make_dir(str(tmp_path / "d"), site="make_dir")
    assert 0 == outcome(lambda: file.write_at(0, b"x", site="write"))
    assert errno.ENOSPC == outcome(lambda: file.write_at(0, b"x" * 10_000, site="write"))
    file.close()
