"""Failed syncs and what they leave behind: in the cache, on the disk, and for the next syncs."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.env import (
    FAILED_SYNCS,
    FaultEnv,
    File,
    PosixEnv,
    SimCrash,
    SimEnv,
    crash_states,
)

BLOCK = 4096
SYNCED = [name for name in FAILED_SYNCS if name != "write-back"]
TOLD = ["ext4-ordered", "xfs", "btrfs"]


def outcome(call: Callable[[], object]) -> int:
    """Return 0, or the errno of the OSError that `call` raised."""
    try:
        call()
    except OSError as exc:
        assert exc.errno is not None
        return exc.errno
    return 0


def syncs(file: File, count: int) -> list[int]:
    return [outcome(lambda: file.sync(site="sync")) for _ in range(count)]


def synced(env: FaultEnv, data: bytes) -> File:
    """Return a file whose name and bytes are durable."""
    file = env.create("f", site="create")
    file.write_at(0, data, site="write")
    file.sync(site="sync")
    env.sync_dir("/", site="sync_dir")
    return file


def on_disk(env: SimEnv) -> list[bytes]:
    """Return what the file may hold after a crash."""
    return [
        built.open("f").read_at(0, 1 << 20)
        for built in (state.build() for state in crash_states(env))
    ]


def blocks(data: bytes) -> str:
    """Name each block by its byte, garbage by `*`."""
    assert len(data) % BLOCK == 0
    letters = ""
    for start in range(0, len(data), BLOCK):
        kinds = set(data[start : start + BLOCK])
        letters += chr(kinds.pop()) if len(kinds) == 1 else "*"
    return letters.replace("\0", "0")


@pytest.mark.parametrize(
    ("name", "results", "read", "disk"),
    [
        ("ext4-ordered", [errno.EIO, 0, 0], "BBB", "AA*"),
        ("ext4-journal", [0, errno.EIO, 0], "BBB", "AA*"),
        ("xfs", [errno.EIO, 0, 0], "BBB", "AA"),
        ("btrfs", [errno.EIO, 0, 0], "AA", "AA"),
        ("write-back", [errno.EIO, 0, 0], "BBB", "AA*"),
    ],
)
def test_each_failed_sync_leaves_what_it_leaves(
    name: str, results: list[int], read: str, disk: str
) -> None:
    """The blocks are clean afterwards: what the later syncs say does not bring them to the disk."""
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * 2 * BLOCK)
    env.add(FAILED_SYNCS[name]())
    file.write_at(0, b"B" * 3 * BLOCK, site="write")
    assert results == syncs(file, 3)
    assert read == blocks(file.read_at(0, 1 << 20))
    assert [disk] == [blocks(data) for data in on_disk(inner)]
    assert 1 == env.injected


@pytest.mark.parametrize(
    ("name", "disk"),
    [
        ("ext4-ordered", "BA**BB"),
        ("ext4-journal", "BA**BB"),
        ("xfs", "BA00BB"),
        ("btrfs", "AA"),
        ("write-back", "BA**BB"),
    ],
)
def test_the_blocks_that_did_not_fail_are_written(name: str, disk: str) -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * 2 * BLOCK)
    env.add(FAILED_SYNCS[name](failed=lambda block: block in (1, 2, 3)))
    file.write_at(0, b"B" * 6 * BLOCK, site="write")
    syncs(file, 2)
    assert [disk] == [blocks(data) for data in on_disk(inner)]


@pytest.mark.parametrize("name", FAILED_SYNCS)
def test_what_is_written_anew_becomes_durable(name: str) -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * 2 * BLOCK)
    env.add(FAILED_SYNCS[name]())
    file.write_at(0, b"B" * BLOCK, site="write")
    assert errno.EIO in syncs(file, 2)
    file.write_at(BLOCK, b"C" * BLOCK, site="write")
    assert [0] == syncs(file, 1)
    assert ["AC"] == [blocks(data) for data in on_disk(inner)]


def test_a_sync_that_reports_an_earlier_error_writes_nothing() -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * BLOCK)
    env.add(FAILED_SYNCS["ext4-journal"]())
    file.write_at(0, b"B" * BLOCK, site="write")
    assert [0] == syncs(file, 1)
    file.write_at(0, b"C" * BLOCK, site="write")
    assert [errno.EIO] == syncs(file, 1)
    assert {"A", "C"} <= {blocks(data) for data in on_disk(inner)}
    assert [0] == syncs(file, 1)
    assert ["C"] == [blocks(data) for data in on_disk(inner)]


def test_part_of_a_block_is_lost_with_the_block() -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * 100)
    env.add(FAILED_SYNCS["ext4-ordered"]())
    file.write_at(50, b"B" * 100, site="write")
    assert [errno.EIO] == syncs(file, 1)
    (data,) = on_disk(inner)
    assert b"A" * 100 == data[:100]
    assert 150 == len(data)
    assert set(b"B") != set(data[100:])


@pytest.mark.parametrize("name", ["ext4-ordered", "ext4-journal", "xfs", "write-back"])
def test_allocations_and_truncations_are_metadata_and_survive(name: str) -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * 2 * BLOCK)
    env.add(FAILED_SYNCS[name]())
    file.truncate(BLOCK, site="truncate")
    file.allocate(3 * BLOCK, written=True, site="allocate")
    file.write_at(BLOCK, b"B" * BLOCK, site="write")
    syncs(file, 2)
    assert ["A00"] == [blocks(data) for data in on_disk(inner)]


def test_btrfs_takes_allocations_and_truncations_back() -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * 2 * BLOCK)
    env.add(FAILED_SYNCS["btrfs"]())
    file.truncate(BLOCK, site="truncate")
    file.allocate(3 * BLOCK, written=True, site="allocate")
    assert [errno.EIO] == syncs(file, 1)
    assert "AA" == blocks(file.read_at(0, 1 << 20))
    assert 2 * BLOCK == file.size()
    assert ["AA"] == [blocks(data) for data in on_disk(inner)]


@pytest.mark.parametrize("name", FAILED_SYNCS)
def test_every_handle_that_was_open_reports_the_error_once(name: str) -> None:
    env = FaultEnv(SimEnv())
    file = synced(env, b"A" * BLOCK)
    others = [env.open("f"), env.open("f")]
    env.add(FAILED_SYNCS[name]())
    file.write_at(0, b"B" * BLOCK, site="write")
    assert errno.EIO in syncs(file, 2)
    late = env.open("f")
    for other in others:
        assert [errno.EIO, 0] == syncs(other, 2)
    assert [0, 0] == syncs(file, 2)
    assert [0] == syncs(late, 1), "somebody was told before it was opened"


@pytest.mark.parametrize("name", ["ext4-journal", "write-back"])
def test_the_first_handle_opened_later_reports_what_nobody_was_told(name: str) -> None:
    env = FaultEnv(SimEnv())
    file = synced(env, b"A" * BLOCK)
    env.add(FAILED_SYNCS[name]())
    file.write_at(0, b"B" * BLOCK, site="write")
    if name == "ext4-journal":
        assert [0] == syncs(file, 1)
    file.close()
    first = env.open("f")
    assert [errno.EIO, 0] == syncs(first, 2)
    assert [0] == syncs(env.open("f"), 1)


def test_several_errors_that_nobody_was_told_are_reported_as_one() -> None:
    env = FaultEnv(SimEnv())
    file = synced(env, b"A" * BLOCK)
    env.add(FAILED_SYNCS["write-back"](times=3))
    for _ in range(3):
        file.write_at(0, b"B" * BLOCK, site="write")
    assert 3 == env.injected
    assert [errno.EIO, 0] == syncs(env.open("f"), 2)
    assert [errno.EIO, 0] == syncs(file, 2)


def test_a_journal_that_goes_on_failing_says_so_every_other_time() -> None:
    env = FaultEnv(SimEnv())
    file = synced(env, b"A" * BLOCK)
    env.add(FAILED_SYNCS["ext4-journal"](times=None))
    assert [0, errno.EIO, 0, errno.EIO] == syncs(file, 4)


@pytest.mark.parametrize("name", SYNCED)
def test_the_rule_strikes_where_it_is_told_to(name: str) -> None:
    inner = SimEnv()
    rule = FAILED_SYNCS[name](site="wal.*", path="f", nth=2, times=2)
    env = FaultEnv(inner, [rule])
    file = synced(env, b"A" * BLOCK)
    for struck in (0, 1, 2, 2):
        file.write_at(0, b"B" * BLOCK, site="write")
        outcome(lambda: file.sync(site="wal.append.sync"))
        assert struck == env.injected
    assert ("sync", 2, 2) == (rule.kind, rule.nth, rule.times)


@pytest.mark.parametrize("profile", ["posix-min", "liar"])
@pytest.mark.parametrize("name", FAILED_SYNCS)
def test_what_was_synced_before_is_not_lost(name: str, profile: str) -> None:
    inner = SimEnv(profile=profile)
    env = FaultEnv(inner)
    file = synced(env, b"A" * BLOCK)
    env.add(FAILED_SYNCS[name]())
    file.write_at(BLOCK, b"B" * BLOCK, site="write")
    outcome(lambda: file.sync(site="sync"))
    assert {"A"} == {blocks(data)[:1] for data in on_disk(inner)}


@pytest.mark.parametrize("name", TOLD)
def test_a_sync_that_fails_after_the_power_was_cut_changes_nothing(name: str) -> None:
    inner = SimEnv()
    env = FaultEnv(inner)
    file = synced(env, b"A" * BLOCK)
    file.write_at(0, b"B" * BLOCK, site="write")
    env.add(FAILED_SYNCS[name](times=None))
    inner.cut_power()
    expected = {state.content_hash for state in crash_states(inner)}
    with pytest.raises(SimCrash):
        file.sync(site="sync")
    assert expected == {state.content_hash for state in crash_states(inner)}


def test_a_failed_sync_needs_a_simulated_file(tmp_path: Path) -> None:
    env = FaultEnv(PosixEnv(), [FAILED_SYNCS["xfs"]()])
    file = env.create(str(tmp_path / "f"), site="create")
    with pytest.raises(TypeError):
        file.sync(site="sync")
    file.close()


def test_the_garbage_is_the_same_in_every_run() -> None:
    def run(seed: int) -> list[bytes]:
        inner = SimEnv(seed)
        env = FaultEnv(inner)
        file = synced(env, b"A" * BLOCK)
        env.add(FAILED_SYNCS["ext4-ordered"]())
        file.write_at(BLOCK, b"B" * BLOCK, site="write")
        syncs(file, 1)
        return on_disk(inner)

    assert run(1) == run(1) != run(2)
