"""A disk that does not give some blocks: what is on the others is there after a repair, and what
was on them is said to be lost.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

import holdfast
from holdfast import LossKind, Outcome
from holdfast.env import Env, File, ReadAroundEnv, SimEnv
from holdfast.env.read_around import BLOCK_BYTES, FILL
from holdfast.recovery import RepairReport, check_folder, key_source
from tests.hostile.folders import FOLDER, closed_database, crashed_database, files_of, machine_with
from tests.unit.recovery.test_repair import content, named, repaired, unsaid
from tests.unit.recovery.test_repair_tail import COUNT, KEY, killed

TARGET = "/repaired"


class BadFile:
    """A file some blocks of which the disk does not give."""

    def __init__(self, inner: File, blocks: set[int], env: BadEnv) -> None:
        self._inner = inner
        self._blocks = blocks
        self._env = env

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def fileno(self) -> int:
        return -1

    def read_at(self, offset: int, count: int) -> bytes:
        self._env.reads += 1
        stop = min(offset + count, self._inner.size())
        if any(offset < (b + 1) * BLOCK_BYTES and b * BLOCK_BYTES < stop for b in self._blocks):
            self._env.errors += 1
            raise OSError(self._env.error, "the medium failed", self._inner.name)
        return self._inner.read_at(offset, count)


class BadEnv:
    """A machine with a disk that does not give some blocks of some files, by name."""

    def __init__(self, inner: Env, bad: dict[str, Iterable[int]], error: int = errno.EIO) -> None:
        self.inner = inner
        self.bad = {name: set(blocks) for name, blocks in bad.items()}
        self.error = error
        self.reads = self.errors = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def open(self, path: str) -> File:
        folder, _, name = path.rpartition("/")
        blocks = self.bad.get(name, set()) if folder == FOLDER else set()
        if -1 in blocks:
            raise OSError(self.error, "the medium failed", path)
        return BadFile(self.inner.open(path), blocks, self)  # type: ignore[return-value]  # by name


def blocks_of(data: bytes) -> range:
    return range(-(-len(data) // BLOCK_BYTES))


def files_with(data: bytes, *blocks: int, error: int = errno.EIO) -> tuple[ReadAroundEnv, BadEnv]:
    machine = SimEnv(1)
    machine.make_dir(FOLDER, site="test")
    with_file = machine.create(f"{FOLDER}/f", site="test")
    with_file.write_at(0, data, site="test")
    with_file.close()
    bad = BadEnv(machine, {"f": blocks}, error)
    return ReadAroundEnv(bad), bad  # type: ignore[arg-type]  # by name


# --- reading around


DATA = bytes(range(1, 251)) * 200


@pytest.mark.parametrize("blocks", [(), (0,), (12,), (3, 4), (0, 1, 5, 12), tuple(range(13))])
def test_every_block_that_can_be_read_is_read(blocks: tuple[int, ...]) -> None:
    env, bad = files_with(DATA, *blocks)
    wanted = bytearray(DATA)
    for block in blocks:
        start, stop = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, len(DATA))
        wanted[start:stop] = FILL * (stop - start)
    file = env.open(f"{FOLDER}/f")
    for offset, count in ((0, len(DATA)), (0, 2 * len(DATA)), (5000, 9000), (4096, 4096), (9, 0)):
        assert file.read_at(offset, count) == wanted[offset : offset + count]
    for offset in range(0, len(DATA) + 5000, 1777):
        assert file.read_at(offset, 3000) == wanted[offset : offset + 3000]
    errors = bad.errors
    assert file.read_at(0, len(DATA)) == wanted
    # What could not be read is not tried again.
    assert bad.errors == errors <= 8 * len(blocks)
    assert env.is_unreadable(f"{FOLDER}/f") == bool(blocks)
    file.close()


def test_neighbouring_blocks_are_one_damage() -> None:
    env, _ = files_with(DATA, 1, 2, 7)
    env.open(f"{FOLDER}/f").read_at(0, len(DATA))
    assert [(error.file, error.offset, error.reason) for error in env.damage()] == [
        (f"{FOLDER}/f", 4096, "bytes 4096 to 12287 cannot be read: the medium failed"),
        (f"{FOLDER}/f", 28672, "bytes 28672 to 32767 cannot be read: the medium failed"),
    ]


def test_want_of_memory_says_nothing_of_the_disk() -> None:
    env, _ = files_with(DATA, 1, error=errno.ENOMEM)
    file = env.open(f"{FOLDER}/f")
    with pytest.raises(OSError, match="the medium failed"):
        file.read_at(0, len(DATA))
    assert file.read_at(0, 4096) == DATA[:4096]
    with pytest.raises(OSError, match="the medium failed"):
        file.read_at(4096, 10)
    assert not env.is_unreadable(f"{FOLDER}/f")


def test_a_file_that_cannot_be_opened_is_damaged() -> None:
    env, bad = files_with(DATA, -1)
    with pytest.raises(holdfast.CorruptionError, match="it cannot be opened"):
        env.open(f"{FOLDER}/f")
    assert env.is_unreadable(f"{FOLDER}/f")
    env.reads_around = False
    with pytest.raises(OSError, match="the medium failed"):
        env.open(f"{FOLDER}/f")
    bad.error = errno.EMFILE
    env.reads_around = True
    with pytest.raises(OSError, match="the medium failed"):
        env.open(f"{FOLDER}/f")


# --- repair


def repair(machine: BadEnv, key: bytes | None = None) -> tuple[RepairReport, dict]:
    """Repair into another folder; return what is found there on a disk that works."""
    report = holdfast.repair(FOLDER, TARGET, env=machine, key=key)
    return report, repaired(machine.inner, key, TARGET)


@pytest.mark.parametrize("make", [closed_database, crashed_database], ids=["closed", "crashed"])
@pytest.mark.parametrize("count", [1, 2, -1])
def test_every_block_of_every_file(make, count: int) -> None:
    """As after any other damage. But what was written last counts too: a block that the disk does
    not give is no torn end.
    """
    files, states = make()
    state = states if isinstance(states, dict) else states[-1]
    outcomes = set()
    for name in [*named(files, ".table"), *named(files, ".wal"), *named(files, ".manifest")]:
        for block in blocks_of(files[name]) if count > 0 else [-1]:
            blocks = range(block, block + count) if count > 0 else [-1]
            machine = BadEnv(machine_with(files), {name: blocks})
            report = check_folder(machine, FOLDER)
            damage = [error for error in report.errors if error.file == f"{FOLDER}/{name}"]
            with pytest.raises(OSError, match="nothing is repaired in place"):
                if damage:
                    holdfast.repair(FOLDER, env=machine)
                else:
                    raise OSError("nothing is repaired in place")
            assert files_of(machine.inner) == files_of(machine_with(files))
            report = holdfast.repair(FOLDER, TARGET, env=machine)
            if report.outcome is Outcome.HEALTHY:
                assert not damage
                continue
            assert any("cannot be " in str(error) for error in report.damage)
            found = repaired(machine.inner, None, TARGET)
            assert unsaid(report, state, found) == [], (name, block, str(report))
            outcomes.add((name.rpartition(".")[2], report.outcome))
            machine.inner.cut_power()
    assert ("table", Outcome.REPAIRED_WITH_LOSS) in outcomes
    assert {kind for kind, _ in outcomes} >= {"table", "wal", "manifest"}


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_what_the_disk_does_not_give_of_the_last_commits_is_said(
    key: bytes | None, *, has_manifest: bool
) -> None:
    """Nothing else shows that they were there."""
    files = killed(key)
    last = [name for name in named(files, ".wal") if any(files[name][4096:])][-1]
    manifests = named(files, ".manifest") if not has_manifest else []
    expected = {"default": {b"%04d" % number: b"x" * 900 for number in range(COUNT)}}
    lost = 0
    for block in blocks_of(files[last]):
        bad = {last: [block], **dict.fromkeys(manifests, range(9))}
        report, found = repair(BadEnv(machine_with(files), bad), key)
        assert unsaid(report, expected, found) == [], (block, str(report))
        if found != expected:
            lost += 1
            (loss,) = [loss for loss in report.losses if loss.kind is LossKind.OPERATIONS]
            assert loss.file.endswith(last)
    assert lost > 1


@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize("blocks", [range(64), [-1]], ids=["unreadable", "cannot be opened"])
def test_a_log_of_which_the_disk_gives_nothing_is_said_to_be_lost(
    blocks: Iterable[int], *, has_manifest: bool
) -> None:
    files, states = crashed_database()
    wals, manifests = named(files, ".wal"), named(files, ".manifest")
    bad = dict.fromkeys(wals, blocks) | ({} if has_manifest else dict.fromkeys(manifests, blocks))
    report, found = repair(BadEnv(machine_with(files), bad))
    assert found != states[-1]
    assert LossKind.OPERATIONS in {loss.kind for loss in report.losses}
    assert unsaid(report, states[-1], found) == []


def test_verify_says_what_cannot_be_read() -> None:
    files, _ = closed_database()
    name = named(files, ".manifest")[-1]
    machine = BadEnv(machine_with(files), {name: [0]})
    report = check_folder(machine, FOLDER, source=key_source(None))
    assert [error.file for error in report.errors if "medium failed" in error.reason] == [
        f"{FOLDER}/{name}"
    ]


def test_what_the_disk_gives_at_another_attempt_is_not_damaged() -> None:
    files, _ = closed_database()
    machine = BadEnv(machine_with(files), {named(files, ".table")[0]: [0]})
    with pytest.raises(OSError, match="give another folder"):
        holdfast.repair(FOLDER, env=machine)
    machine.bad.clear()
    assert holdfast.repair(FOLDER, env=machine).outcome is Outcome.HEALTHY
    with holdfast.open(FOLDER, env=machine.inner) as database:
        assert content(database)
