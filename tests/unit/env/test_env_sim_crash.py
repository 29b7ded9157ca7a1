"""The crash explorer: where the power is cut, how states are named, replayed and built, and what
they share.
"""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast.env
from holdfast.base import DatabaseLockedError
from holdfast.env import (
    CRASH_CLASSES,
    PROFILES,
    CrashPoint,
    CrashState,
    File,
    Operation,
    Profile,
    SimCrash,
    SimEnv,
    crash_state,
    crash_states,
)
from holdfast.env.sim_disk import Write
from holdfast.env.sim_image import CHUNK_BYTES, Image

SEEDED = [
    (seed, profile)
    for profile in PROFILES
    for seed in range(10 if profile in ("posix-min", "ext4-ordered") else 4)
]
"""Seeds and profiles of the tests with random histories."""


def workload(env: SimEnv) -> int:
    """Run ten operations; return how many of them the caller saw done."""
    seen = 0
    try:
        env.make_dir("d", site="make_dir")
        seen += 1
        file = env.create("d/a", site="create")
        seen += 1
        file.write_at(0, b"a" * 700, site="write")
        seen += 1
        file.allocate(5000, written=True, site="allocate")
        seen += 1
        file.sync(site="sync")
        seen += 1
        env.sync_dir("d", site="sync_dir")
        seen += 1
        file.truncate(100, site="truncate")
        seen += 1
        env.rename("d/a", "d/b", site="rename")
        seen += 1
        env.unlink("d/b", site="unlink")
        seen += 1
        env.sync_dir("/", site="sync_root")
        seen += 1
    except SimCrash:
        assert not env.powered
    return seen


KINDS = [
    "make_dir", "create", "write", "allocate", "sync", "sync_dir", "truncate", "rename", "unlink",
    "sync_dir",
]  # fmt: skip


def hashes(env: SimEnv, **options: object) -> set[str]:
    return {state.content_hash for state in crash_states(env, **options)}  # type: ignore[arg-type]


def test_every_mutating_call_is_logged_in_order() -> None:
    env = SimEnv()
    assert 10 == workload(env) == env.op_count
    assert KINDS == [op.kind for op in env.op_log]
    assert list(range(10)) == [op.number for op in env.op_log]
    assert Operation(2, 0, "write", "write", "d/a", (0, 700)) == env.op_log[2]
    assert Operation(4, 0, "sync", "sync", "d/a", (4,)) == env.op_log[4]
    assert Operation(7, 0, "rename", "rename", "d/a", "d/b") == env.op_log[7]


@pytest.mark.parametrize("index", range(10))
def test_the_power_can_be_cut_before_every_operation(index: int) -> None:
    env = SimEnv()
    env.crash_at(index)
    assert index == workload(env) == env.op_count


@pytest.mark.parametrize("index", range(10))
def test_the_power_can_be_cut_after_every_operation_before_its_caller_knows(index: int) -> None:
    env = SimEnv()
    env.crash_at(index, after=True)
    assert index == workload(env)
    assert index + 1 == env.op_count


def test_the_states_after_an_operation_are_those_before_the_next() -> None:
    for index in range(9):
        after, before = SimEnv(), SimEnv()
        after.crash_at(index, after=True)
        before.crash_at(index + 1)
        workload(after)
        workload(before)
        assert hashes(after) == hashes(before)


def test_states_can_be_taken_at_every_operation_of_one_run() -> None:
    """An observer sees at each operation what a run that crashed there would have left."""
    env = SimEnv()
    observed: list[set[str]] = []
    env.observer = lambda operation: observed.append(hashes(env))
    workload(env)
    for index in range(10):
        crashed = SimEnv()
        crashed.crash_at(index, after=True)
        workload(crashed)
        assert observed[index] == hashes(crashed)


def test_a_crash_point_in_the_past_is_refused() -> None:
    env = SimEnv()
    workload(env)
    with pytest.raises(ValueError, match="past"):
        env.crash_at(9)
    env.crash_at(10)


def test_a_failed_call_is_no_operation() -> None:
    env = SimEnv()
    with pytest.raises(FileNotFoundError):
        env.unlink("f", site="unlink")
    assert 0 == env.op_count


def busy(seed: int, profile: str = "posix-min") -> SimEnv:
    """Return an env with a random history."""
    chance = random.Random(seed)
    env = SimEnv(seed, profile=profile)
    files: dict[str, File] = {}
    for step in range(chance.randrange(5, 40)):
        kind = chance.choice(["create", "write", "write", "write", "sync", "dir", "rename", "cut"])
        if kind == "create" or not files:
            files[f"f{step}"] = env.create(f"f{step}", site="create")
            continue
        name = chance.choice(sorted(files))
        if kind == "write":
            data = chance.randbytes(chance.choice([10, 600, 5000, 9000]))
            files[name].write_at(chance.randrange(8000), data, site="write")
        elif kind == "sync":
            files[name].sync(site="sync")
        elif kind == "dir":
            env.sync_dir("/", site="sync_dir")
        elif kind == "cut":
            files[name].truncate(chance.randrange(3000), site="truncate")
        elif kind == "rename":
            target = f"g{step}" if chance.random() < 0.5 else chance.choice(sorted(files))
            env.rename(name, target, site="rename")
            files[target] = files.pop(name)
    return env


def contents(env: SimEnv) -> dict[str, bytes]:
    return {name: env.open(name).read_at(0, 1 << 20) for name in env.list_dir("/")}


@pytest.mark.parametrize(("seed", "profile"), SEEDED)
def test_states_are_distinct_replayable_and_stable(seed: int, profile: str) -> None:
    env = busy(seed, profile)
    states = list(crash_states(env, seed=seed))
    trees = [contents(state.build()) for state in states]
    for i, (state, tree) in enumerate(zip(states, trees, strict=True)):
        replayed = crash_state(env, state.name, seed=seed)
        assert state.content_hash == replayed.content_hash
        assert tree == contents(replayed.build())
        assert tree not in trees[:i], f"{state.name} repeats a state"
        assert len(state.explain().splitlines()) == len(states[0].explain().splitlines())
    again = busy(seed, profile)
    assert [(s.name, s.content_hash) for s in states] == [
        (s.name, s.content_hash) for s in crash_states(again, seed=seed)
    ]


class Labelled:
    """A file whose writes each have a byte of their own, so that every byte of a state says where
    it came from.
    """

    def __init__(self, env: SimEnv, name: str) -> None:
        self.file = env.create(name, site="create")
        self.durable = b""
        self.volatile = b""
        self.pending: list[tuple[int, int, int]] = []

    def write(self, offset: int, count: int, label: int) -> None:
        self.file.write_at(offset, bytes([label]) * count, site="write")
        self.put(offset, count, label)

    def allocate(self, size: int) -> None:
        old = len(self.volatile)
        self.file.allocate(size, written=True, site="allocate")
        if size > old:
            self.put(old, size - old, 0)

    def put(self, offset: int, count: int, label: int) -> None:
        padded = self.volatile.ljust(offset, b"\0")
        self.volatile = padded[:offset] + bytes([label]) * count + padded[offset + count :]
        self.pending.append((offset, offset + count, label))

    def sync(self) -> None:
        self.file.sync(site="sync")
        self.durable = self.volatile
        self.pending.clear()

    def check(self, data: bytes, profile: Profile) -> None:
        """Require that each byte is durable or from a pending write that covers it; with collateral
        damage, that covers a part of its sector.
        """
        ends = [end for _, end, _ in self.pending]
        assert len(self.durable) <= len(data) <= max([len(self.durable), *ends])
        sector = profile.sector_bytes if profile.collateral else 1
        touched = {
            number
            for start, end, label in self.pending
            if label
            for number in range(start // sector, -(-end // sector))
        }
        for index, byte in enumerate(data):
            labels = [label for start, end, label in self.pending if start <= index < end]
            floor = self.durable[index] if index < len(self.durable) else 0
            in_room = profile.size_before_data and index >= len(self.durable)
            damaged = bool(labels) and (
                profile.torn_sectors or (in_room and (profile.garbage_in_room or byte == 0))
            )
            damaged = damaged or (profile.collateral and index // sector in touched)
            assert byte == floor or byte in labels or damaged, f"byte {index} is {byte}"


@pytest.mark.parametrize(("seed", "profile"), [run for run in SEEDED if run[1] != "liar"])
def test_every_byte_of_every_state_is_durable_or_was_being_written(seed: int, profile: str) -> None:
    chance = random.Random(seed)
    env = SimEnv(seed, profile=profile)
    files = {name: Labelled(env, name) for name in "abc"}
    env.sync_dir("/", site="sync_dir")
    for label in range(1, chance.randrange(5, 25)):
        file = files[chance.choice("abc")]
        if chance.random() < 0.25:
            file.sync()
        elif chance.random() < 0.25:
            file.allocate(chance.randrange(6000))
        else:
            file.write(chance.randrange(5000), chance.choice([1, 40, 512, 1500]), label)
    for state in crash_states(env):
        tree = contents(state.build())
        assert set(files) == set(tree)
        for name, file in files.items():
            file.check(tree[name], env.profile)
        if state.name == "none":
            assert {name: file.durable for name, file in files.items()} == tree
        elif state.name == "all":
            assert {name: file.volatile for name, file in files.items()} == tree


def test_an_unknown_name_or_class_is_refused() -> None:
    env = busy(1)
    with pytest.raises(KeyError):
        crash_state(env, "drop-one-999")
    with pytest.raises(KeyError):
        crash_state(env, "nonsense")
    with pytest.raises(KeyError):
        list(crash_states(env, ["nonsense"]))


def test_a_state_outlives_what_the_env_does_next() -> None:
    env = SimEnv()
    file = env.create("f", site="create")
    file.write_at(0, b"old", site="write")
    file.sync(site="sync")
    env.sync_dir("/", site="sync_dir")
    file.write_at(0, b"new", site="write")
    states = list(crash_states(env))
    expected = [contents(state.build()) for state in states]
    file.sync(site="sync")
    file.write_at(0, b"newer", site="write")
    env.unlink("f", site="unlink")
    env.sync_dir("/", site="sync_dir")
    assert expected == [contents(state.build()) for state in states]
    assert {"f": b"old"} in expected and {"f": b"new"} in expected


def test_built_machines_are_independent() -> None:
    env = busy(3)
    state = next(crash_states(env, ["all"]))
    first, second = state.build(), state.build()
    before = contents(second)
    for name in first.list_dir("/"):
        first.unlink(name, site="unlink")
    first.create("other", site="create").write_at(0, b"x", site="write")
    assert before == contents(second) == contents(state.build())


def test_a_built_machine_has_everything_durable_and_no_lock() -> None:
    env = SimEnv()
    env.lock_file("LOCK")
    env.sync_dir("/", site="sync_dir")
    with pytest.raises(DatabaseLockedError):
        env.lock_file("LOCK")
    state = next(crash_states(env, ["all"]))
    built = state.build()
    assert {state.content_hash} == hashes(built)
    built.lock_file("LOCK")
    assert 0 == built.op_count


def test_shared_locks_exclude_exclusive_ones_only() -> None:
    env = SimEnv()
    with pytest.raises(FileNotFoundError):
        env.lock_file("LOCK", shared=True)
    env.lock_file("LOCK").release()
    before = env.op_count
    first, second = (env.lock_file("LOCK", shared=True) for _ in range(2))
    with pytest.raises(DatabaseLockedError):
        env.lock_file("LOCK")
    first.release()
    first.release()
    assert [False, True] == [first.is_held, second.is_held]
    with pytest.raises(DatabaseLockedError):
        env.lock_file("LOCK")
    second.release()
    third = env.lock_file("LOCK")
    with pytest.raises(DatabaseLockedError):
        env.lock_file("LOCK", shared=True)
    third.release()
    assert before == env.op_count
    assert [] == env.unreturned()


def test_a_built_machine_starts_later_and_draws_other_numbers() -> None:
    env = busy(4)
    states = list(crash_states(env))
    drawn = {env.random_bytes(16)}
    for state in states:
        built = state.build()
        assert built.wall_time() > env.wall_start + env.uptime - 1e-3
        assert env.profile == built.profile
        drawn.add(built.random_bytes(16))
    assert len(states) + 1 == len(drawn)
    assert states[0].build().random_bytes(8) == states[0].build().random_bytes(8)
    assert SimEnv(7).random_bytes(8) == states[0].build(seed=7).random_bytes(8)


def test_a_crash_during_recovery_starts_from_the_state_it_recovered() -> None:
    env = SimEnv()
    file = env.create("f", site="create")
    file.write_at(0, b"A" * 512, site="write")
    file.sync(site="sync")
    env.sync_dir("/", site="sync_dir")
    env.unlink("f", site="unlink")
    built = next(crash_states(env, ["none"])).build()
    copy = built.create("g", site="create")
    copy.write_at(0, built.open("f").read_at(0, 512), site="write")
    copy.sync(site="sync")
    built.sync_dir("/", site="sync_dir")
    built.crash_at(built.op_count)
    with pytest.raises(SimCrash):
        built.unlink("f", site="unlink")
    nested = [contents(state.build()) for state in crash_states(built)]
    assert [{"f": b"A" * 512, "g": b"A" * 512}] == nested


def test_a_file_with_two_names_is_one_file() -> None:
    """Half a rename leaves both names; a write through one is read through the other."""
    env = SimEnv()
    file = env.create("a", site="create")
    file.write_at(0, b"A", site="write")
    file.sync(site="sync")
    env.sync_dir("/", site="sync_dir")
    file.write_at(0, b"B" * 2000, site="write")
    env.rename("a", "b", site="rename")
    found = 0
    for state in crash_states(env):
        built = state.build()
        if built.list_dir("/") == ["a", "b"]:
            found += 1
            assert contents(built)["a"] == contents(built)["b"]
            node = built.disk.find_file("a")
            assert node is built.disk.find_file("b")
    assert found > 1


def test_the_hash_is_the_same_in_every_process() -> None:
    script = (
        "from holdfast.env import SimEnv, crash_states\n"
        "e = SimEnv(); f = e.create('f', site='c'); f.write_at(0, b'x' * 9000, site='w')\n"
        "print([(s.name, s.content_hash) for s in crash_states(e)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert 1 == len(outputs)


def test_many_names_are_tried_in_pairs_and_not_in_every_subset() -> None:
    env = SimEnv()
    for i in range(12):
        env.create(f"f{i}", site="create")
    subsets = [s for s in crash_states(env, ["dir-subset"]) if s.name.startswith("dir-subset")]
    sizes = {len(state.build().list_dir("/")) for state in subsets}
    assert {0, 1, 2, 10, 11, 12} == sizes
    assert 1 + 12 + 66 == len(subsets) / 2


def test_a_large_write_is_torn_at_a_sample_of_its_sectors() -> None:
    env = SimEnv()
    file = env.create("f", site="create")
    env.sync_dir("/", site="sync_dir")
    file.write_at(0, random.Random(1).randbytes(1 << 20), site="write")
    cuts = [s for s in crash_states(env, ["torn-last"]) if s.name.startswith("torn-last-0-cut-")]
    assert 60 < len(cuts) < 70
    sizes = {state.build().file_size("f") for state in cuts}
    assert {512, (1 << 20) - 512, 1 << 20} <= sizes


def test_taking_states_is_quick() -> None:
    """Ten files of less than a megabyte together: well under a millisecond for each state."""
    env = SimEnv()
    for i in range(10):
        file = env.create(f"f{i}", site="create")
        file.write_at(0, random.Random(i).randbytes(90_000), site="write")
        file.sync(site="sync")
        if i % 3 == 0:
            env.rename(f"f{i}", f"g{i}", site="rename")
            file.write_at(80_000, random.Random(i).randbytes(20_000), site="write")
    started = time.process_time()
    count = len(list(crash_states(env)))
    assert count > 300
    assert (time.process_time() - started) / count < 0.001


def test_two_files_with_many_changes_are_cut_at_a_sample_of_pairs() -> None:
    env = SimEnv()
    files = [env.create(name, site="create") for name in "ab"]
    env.sync_dir("/", site="sync_dir")
    for step in range(10):
        for file in files:
            file.write_at(step, b"x", site="write")
    states = list(crash_states(env, ["file-cuts"]))
    assert 40 < len(states) <= 64
    assert [s.name for s in states] == [s.name for s in crash_states(env, ["file-cuts"])]
    assert [] == list(crash_states(env, ["power-set"])), "twenty changes are too many"


def test_a_truncation_to_the_same_size_changes_nothing() -> None:
    env = SimEnv()
    file = env.create("f", site="create")
    env.sync_dir("/", site="sync_dir")
    file.truncate(0, site="truncate")
    assert 3 == env.op_count
    assert 1 == len(hashes(env))


def test_a_name_that_the_room_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        getattr(holdfast.env, "nothing")


def test_profiles_are_checked() -> None:
    with pytest.raises(ValueError, match="sector_bytes"):
        SimEnv(sector_bytes=100)
    with pytest.raises(KeyError):
        SimEnv(profile="fat")
    assert 4096 == SimEnv(sector_bytes=4096).profile.sector_bytes
    own = Profile(
        name="own", rename_atomic=True, names_ordered=False, sync_commits_names=False,
        size_before_data=False, torn_sectors=False,
    )  # fmt: skip
    assert own is SimEnv(profile=own).profile
    with pytest.raises(ValueError, match="metadata_ordered"):
        replace(own, metadata_ordered=True)
    with pytest.raises(ValueError, match="lying_syncs"):
        replace(own, lying_syncs=-1)


def test_names_replay_for_the_classes_of_one_profile() -> None:
    for profile, kind in (
        ("no-psow", "collateral"),
        ("no-psow-4k", "collateral"),
        ("liar", "lost-syncs"),
    ):
        env = SimEnv(profile=profile)
        file = env.create("f", site="create")
        for offset in (0, 100, 200):
            file.write_at(offset, b"x" * 100, site="write")
            file.sync(site="sync")
        file.write_at(300, b"y" * 100, site="write")
        env.sync_dir("/", site="sync_dir")
        states = list(crash_states(env, [kind]))
        assert len(states) > 3
        for state in states:
            assert state.name.startswith(kind)
            assert state.content_hash == crash_state(env, state.name).content_hash


def test_renames_between_folders_are_refused() -> None:
    env = SimEnv()
    env.make_dir("d", site="make_dir")
    env.create("f", site="create")
    with pytest.raises(OSError, match="cross-device"):
        env.rename("f", "d/f", site="rename")
    with pytest.raises(OSError):
        env.rename("/", "x", site="rename")


def test_a_folder_can_be_renamed_with_what_is_in_it() -> None:
    env = SimEnv(profile="ext4-ordered")
    env.make_dir("d", site="make_dir")
    env.create("d/f", site="create")
    env.rename("d", "e", site="rename")
    assert ["f"] == env.list_dir("e")
    with pytest.raises(IsADirectoryError):
        env.file_size("e")


def test_a_losing_sync_can_revert_what_is_read() -> None:
    env = SimEnv()
    file = env.create("f", site="create")
    file.write_at(0, b"old", site="write")
    file.sync(site="sync")
    file.write_at(0, b"new!", site="write")
    file.lose_writes(revert=True)  # type: ignore[attr-defined]
    assert b"old" == file.read_at(0, 10)
    file.write_at(3, b"er", site="write")
    assert b"older" == file.read_at(0, 10)


def test_a_state_shows_its_name() -> None:
    state = next(crash_states(SimEnv()))
    assert isinstance(state, CrashState)
    assert "CrashState('none')" == repr(state)
    assert "none" == CRASH_CLASSES[0]


class Reference:
    """The plain way to keep a file's bytes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        if data:
            self.data.extend(bytes(max(0, offset + len(data) - len(self.data))))
            self.data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "change", "zero", "resize", "copy"]),
        st.integers(0, 3 * CHUNK_BYTES),
        st.sampled_from([0, 1, 3, 511, 512, 4095, 4096, 4097, 9000]),
        st.integers(0, 2),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_an_image_equals_a_bytearray_and_its_digest_tells_equal_from_different(
    steps: list[tuple[str, int, int, int]],
) -> None:
    image, reference = Image(), Reference()
    for kind, offset, count, letter in steps:
        if kind == "write":
            data = bytes([letter]) * count
            image.write(offset, data)
            reference.write(offset, data)
        elif kind == "change":
            data = bytes([letter]) * count
            Write(0, "site", offset, data).apply(image)
            reference.write(offset, data)
        elif kind == "zero" and count:
            image.zero(offset, count)
            reference.write(offset, bytes(count))
        elif kind == "resize":
            image.resize(offset)
            reference.resize(offset)
        else:
            frozen = image.freeze()
            before = frozen.digest()
            image = frozen.thawed()
            image.write(0, b"other")
            assert before == frozen.digest()
            assert bytes(reference.data) == frozen.read(0, 1 << 20)
            image = frozen.thawed()
        assert bytes(reference.data) == image.read(0, 1 << 20)
        fresh = Image()
        fresh.resize(len(reference.data))
        fresh.write(0, bytes(reference.data))
        assert fresh.digest() == image.digest()
        assert fresh.chunks == image.chunks
    if reference.data:
        other = image.freeze().thawed()
        other.write(0, bytes([image.read(0, 1)[0] ^ 1]))
        assert other.digest() != image.digest()


def test_a_crash_point_is_kept_while_the_machine_goes_on() -> None:
    env = SimEnv()
    file = env.create("a", site="create")
    file.write_at(0, b"old", site="write")
    expected = [state.content_hash for state in crash_states(env)]
    point = CrashPoint(env)
    file.write_at(0, b"new", site="write")
    file.sync(site="sync")
    env.sync_dir(".", site="sync_dir")
    env.unlink("a", site="unlink")
    assert expected == [state.content_hash for state in point.states()]
    assert b"old" == point.state("all").build().open("a").read_at(0, 9)


def test_what_was_not_given_back_is_named() -> None:
    env = SimEnv()
    file = env.create("a", site="create")
    lock = env.lock_file("LOCK")
    gate = env.mutex()
    gate.acquire()
    task = env.spawn("waits", gate.acquire)  # type: ignore[arg-type]  # its result is ignored
    expected = ["LOCK is locked", "a is open", "task waits has not ended"]
    assert expected == env.unreturned()
    file.close()
    lock.release()
    gate.release()
    task.join()
    assert [] == env.unreturned()


def test_the_room_loads_the_simulation_only_when_asked(tmp_path: Path) -> None:
    script = (
        "import sys, holdfast.env\n"
        "assert not [n for n in sys.modules if n.startswith('holdfast.env.sim')]\n"
        "for name in holdfast.env.__all__: getattr(holdfast.env, name)\n"
        "try: holdfast.env.nothing\n"
        "except AttributeError: print('ok')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ok\n" == result.stdout
