"""A disk that does not give some blocks: what is on the others is there after a repair, and what
was on them is said to be lost.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

import pytest

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings, LossKind, Outcome
from holdfast.engine import opening
from holdfast.env import Env, File, FileLock, ReadAroundEnv, SimEnv
from holdfast.env.read_around import BLOCK_BYTES, FILL
from holdfast.recovery import RepairReport, check_folder, key_source
from holdfast.recovery.repair_survey import survey
from tests.hostile.folders import (
    FOLDER,
    closed_database,
    crashed_database,
    files_of,
    machine_with,
    without_room,
)
from tests.unit.recovery.test_repair import content, named, repaired, unsaid
from tests.unit.recovery.test_repair_tail import COUNT, KEY, killed

TARGET = "/repaired"
LATE = DatabaseSettings(
    wal_segment_bytes=8 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=64 << 10, page_bytes=512, table_bytes=8 << 10),
)


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
        blocks = self._env.blocks_now(self._blocks)
        if any(offset < (b + 1) * BLOCK_BYTES and b * BLOCK_BYTES < stop for b in blocks):
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

    def blocks_now(self, blocks: set[int]) -> set[int]:
        """Which of these fail by now."""
        return blocks

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
    bad.error = errno.EMFILE
    with pytest.raises(OSError, match="the medium failed"):
        env.open(f"{FOLDER}/f")
    bad.error = errno.EIO
    env.settle_all()
    with pytest.raises(OSError, match="the medium failed"):
        env.open(f"{FOLDER}/f")


@pytest.mark.parametrize("paths", [None, [f"{FOLDER}/f"], [f"{FOLDER}/g"], []])
def test_what_fails_once_a_file_is_settled_raises(paths: list[str] | None) -> None:
    env, bad = files_with(DATA, 1)
    file = env.open(f"{FOLDER}/f")
    wanted = DATA[:4096] + FILL * 4096 + DATA[8192:]
    assert file.read_at(0, len(DATA)) == wanted
    env.settle_all() if paths is None else env.settle(paths)
    assert file.read_at(0, len(DATA)) == wanted
    bad.bad["f"].add(3)
    if paths is not None and f"{FOLDER}/f" not in paths:
        assert file.read_at(0, len(DATA)) == wanted[:12288] + FILL * 4096 + DATA[16384:]
    else:
        with pytest.raises(OSError, match="the medium failed"):
            file.read_at(0, len(DATA))
        assert file.read_at(0, 12288) == wanted[:12288]


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
            if damage:
                with pytest.raises(OSError, match="nothing is repaired in place"):
                    holdfast.repair(FOLDER, env=machine)
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


# --- what a second reader found


def end_of_life(machine: SimEnv, database: holdfast.Database) -> dict[str, bytes]:
    """Kill the process; return the files that it leaves."""
    files = files_of(machine)
    machine.cut_power()
    opening._open_databases.discard(database)
    return files


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("block", [0, 1, -1, None])
def test_an_open_that_was_cut_off_does_not_make_up_for_the_end_of_the_log(
    block: int | None, key: bytes | None
) -> None:
    """Its first segment is no later life: its manifest was not in force."""
    before = killed(key)
    machine = machine_with(before)
    after = end_of_life(machine, holdfast.open(FOLDER, env=machine, key=key))
    left = {n: d for n, d in after.items() if n not in before and n.endswith((".wal", ".table"))}
    assert named(left, ".wal")
    last = named(before, ".wal")[-2]
    assert any(before[last][4096:])
    files = before | left
    if block is None:
        del files[last]
    bad = BadEnv(machine_with(files), {} if block is None else {last: [block]})
    report, found = repair(bad, key)
    expected = {"default": {b"%04d" % number: b"x" * 900 for number in range(COUNT)}}
    assert found != expected
    assert unsaid(report, expected, found) == []


class LateEnv(BadEnv):
    """A disk that begins to fail after so many reads."""

    def __init__(self, inner: Env, bad: dict[str, Iterable[int]], after: int) -> None:
        super().__init__(inner, bad)
        self.after = after

    def blocks_now(self, blocks: set[int]) -> set[int]:
        return blocks if self.reads > self.after else set()


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_disk_that_fails_further_during_a_repair(key: bytes | None) -> None:
    """The repair ends with an error, or with all said; never with what it did not look at again."""
    rows = {b"%05d" % number: b"%d" % number * 20 for number in range(60)}
    machine = SimEnv(4)
    database = holdfast.open(FOLDER, settings=LATE, env=machine, key=key)
    other = database.keyspace("other")
    other.put_many(rows)
    database.put_many(rows)
    database.flush()
    for number in range(20):
        database[b"late%02d" % number] = b"x" * 700
    files = end_of_life(machine, database)
    expected = {
        "default": rows | {b"late%02d" % n: b"x" * 700 for n in range(20)},
        "other": rows,
    }
    first, second = named(files, ".table")[:2]
    damaged = bytearray(files[first])
    damaged[300] ^= 0x55
    files[first] = bytes(damaged)
    log = [name for name in named(files, ".wal") if any(files[name][BLOCK_BYTES:])][-1]
    end = (len(files[log].rstrip(b"\0")) - 1) // BLOCK_BYTES
    counted = LateEnv(machine_with(files), {}, 0)
    holdfast.repair(FOLDER, TARGET, env=counted, key=key)
    outcomes = set()
    for name, block in [(second, 0), (log, end)]:
        for after in range(1, counted.reads, counted.reads // 16):
            machine = machine_with(files)
            late = LateEnv(machine, {name: [block]}, after)
            try:
                report = holdfast.repair(FOLDER, TARGET, env=late, key=key)
            except (OSError, holdfast.CorruptionError):
                outcomes.add("told")
                assert "CURRENT" not in "".join(_names_in(machine, TARGET))
            else:
                found = repaired(machine, key, TARGET)
                assert unsaid(report, expected, found) == [], (name, block, after, str(report))
                outcomes.add("repaired")
            assert files_of(machine) == files_of(machine_with(files))
            machine.cut_power()
    assert outcomes == {"told", "repaired"}


def _names_in(machine: SimEnv, folder: str) -> list[str]:
    try:
        return machine.list_dir(folder)
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("block", [0, 1, -1])
def test_an_older_manifest_of_a_database_that_was_closed_says_nothing_of_a_later_log(
    block: int,
) -> None:
    machine = SimEnv(3)
    with holdfast.open(FOLDER, env=machine, settings=LATE) as database:
        database.put_many({b"%d" % number: b"old" for number in range(20)})
    before = files_of(machine)
    database = holdfast.open(FOLDER, env=machine)
    for number in range(5):
        database[b"%d" % number] = b"new"
    state = content(database)
    after = end_of_life(machine, database)
    files = {n: d for n, d in (before | after).items() if not n.startswith("CURRENT.")}
    assert len(named(files, ".manifest")) == 2
    bad = {named(files, ".manifest")[-1]: [0], named(after, ".wal")[-1]: [block]}
    report, found = repair(BadEnv(machine_with(files), bad))
    assert unsaid(report, state, found) == []


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("is_flip", [False, True])
def test_keyspaces_that_a_hole_in_the_manifest_may_have_made_or_dropped_are_said(
    key: bytes | None, *, is_flip: bool
) -> None:
    machine = SimEnv(3)
    settings = replace(LATE, wal_alignment_bytes=4096)
    # Of a manifest that is one snapshot every hole takes all.
    env = without_room(machine)
    with holdfast.open(FOLDER, settings=settings, env=env, key=key) as database:
        database[b"a"] = b"1"
        database.flush()
        database.keyspace("dead")[b"x"] = b"y"
        database.flush()
        database.keyspace("empty")
        database.drop_keyspace("dead")
        for number in range(3):
            database[b"b%d" % number] = b"1"
            database.flush()
        names = set(database.keyspaces())
    files = files_of(machine)
    manifest = named(files, ".manifest")[-1]
    others = 0
    for block in blocks_of(files[manifest]):
        data, bad = bytearray(files[manifest]), {}
        if is_flip:
            data[block * BLOCK_BYTES + 20] ^= 1
        else:
            bad = {manifest: [block]}
        machine = machine_with(files | {manifest: bytes(data)})
        if check_folder(BadEnv(machine, bad), FOLDER, source=key_source(key)).ok:
            continue
        report, found = repair(BadEnv(machine, bad), key)
        if set(found) != names:
            others += 1
            assert {loss.kind for loss in report.losses} & {LossKind.NAMES, LossKind.ORDER}, block
    assert others > 1


@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "with the key"])
@pytest.mark.parametrize("block", [0, -1])
def test_an_encrypted_database_without_its_key_file_is_not_taken_for_a_plain_one(
    block: int, key: bytes | None
) -> None:
    files = {name: data for name, data in killed(KEY).items() if not name.startswith("KEYS")}
    machine = BadEnv(machine_with(files), {named(files, ".manifest")[-1]: [block]})
    with pytest.raises(holdfast.CorruptionError, match="its key file is missing"):
        holdfast.repair(FOLDER, TARGET, env=machine, key=key)
    assert not _names_in(machine.inner, TARGET)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_in_place_all_is_read_before_anything_is_written(key: bytes | None) -> None:
    files = {name: data for name, data in killed(key).items() if not name.startswith("CURRENT.")}
    for name in named(files, (".wal", ".table")):
        machine = BadEnv(machine_with(files), {name: [len(blocks_of(files[name])) // 2]})
        with pytest.raises(OSError, match="nothing is repaired in place"):
            holdfast.repair(FOLDER, env=machine, key=key)
        assert files_of(machine.inner) == files_of(machine_with(files))


def test_a_disk_that_is_read_only_by_now_can_be_verified_and_repaired_from() -> None:
    files, _ = closed_database()
    machine = BadEnv(machine_with(files), {named(files, ".manifest")[-1]: [0]})

    def check(path: str) -> None:
        if path.startswith(FOLDER):
            raise OSError(errno.EROFS, "the file system is read-only", path)

    def lock_file(path: str, *, shared: bool = False) -> FileLock:
        if not shared:
            check(path)
        return machine.inner.lock_file(path, shared=shared)

    def create(path: str, *, site: str) -> File:
        check(path)
        return machine.inner.create(path, site=site)

    # In the way of __getattr__.
    machine.lock_file = lock_file  # type: ignore[attr-defined]
    machine.create = create  # type: ignore[attr-defined]
    assert not check_folder(machine, FOLDER).ok
    report = holdfast.repair(FOLDER, TARGET, env=machine)
    assert report.outcome is not Outcome.HEALTHY
    assert repaired(machine.inner, None, TARGET)
    with pytest.raises(OSError, match="read-only"):
        holdfast.repair(FOLDER, env=machine)


@pytest.mark.parametrize("block", [0, -1])
def test_of_two_key_files_the_one_that_can_be_read_is_used(block: int) -> None:
    machine = SimEnv(3)
    with holdfast.open(FOLDER, env=machine, key=KEY) as database:
        database[b"a"] = b"1"
    files = files_of(machine)
    keys = [name for name in files if name.startswith("KEYS")]
    assert len(keys) == 1
    newest = keys[0].rpartition(".")[0] + f".{int(keys[0].rpartition('.')[2]) + 1}"
    machine = machine_with(files | {newest: files[keys[0]]})
    bad = BadEnv(machine, {newest: [block]})
    assert check_folder(bad, FOLDER, source=key_source(KEY)).tables == 1


def test_a_log_that_was_looked_at_is_not_read_around_any_more() -> None:
    """Its replay reads it again: what it does not get then nobody would miss."""
    disk = BadEnv(machine_with(crashed_database()[0]), {})
    env = ReadAroundEnv(disk)  # type: ignore[arg-type]  # by name
    names = env.list_dir(FOLDER)
    assert survey(env, FOLDER, names).manifest is not None
    kinds = set()
    for name in names:
        kind = name.rpartition(".")[2]
        if kind in ("wal", "table"):
            kinds.add(kind)
            disk.bad = {name: {0}}
            file = env.open(f"{FOLDER}/{name}")
            if kind == "wal":
                with pytest.raises(OSError, match="the medium failed"):
                    file.read_at(0, 100)
            else:
                assert file.read_at(0, 100) == FILL * 100
            file.close()
    assert kinds == {"wal", "table"}


def test_in_place_what_fails_later_ends_the_repair() -> None:
    """Read around, it would be put aside with holes, and the original removed."""
    files = killed(None)
    logs = named(files, ".wal")
    damaged = bytearray(files[logs[0]])
    damaged[BLOCK_BYTES + 300] ^= 1
    files[logs[0]] = bytes(damaged)
    counted = LateEnv(machine_with(files), {}, 0)
    assert holdfast.repair(FOLDER, env=counted).outcome is Outcome.REPAIRED_WITH_LOSS
    told = 0
    for after in range(1, counted.reads):
        machine = machine_with(files)
        try:
            holdfast.repair(FOLDER, env=LateEnv(machine, {logs[1]: [1]}, after))
        except OSError:
            told += 1
            assert all(_bytes_of(machine, name) == data for name, data in files.items())
        else:
            assert _bytes_of(machine, f"damaged-1/{logs[1]}") == files[logs[1]]
        machine.cut_power()
    assert told > 3


def test_the_only_segment_of_a_log_counts() -> None:
    machine = SimEnv(2)
    database = holdfast.open(FOLDER, env=machine)
    for number in range(20):
        database[b"%02d" % number] = b"x" * 900
    state = content(database)
    files = end_of_life(machine, database)
    (log,) = [name for name in named(files, ".wal") if any(files[name][BLOCK_BYTES:])]
    last = (len(files[log].rstrip(b"\0")) - 1) // BLOCK_BYTES
    report, found = repair(BadEnv(machine_with(files), {log: [last]}))
    assert found != state
    assert unsaid(report, state, found) == []


def _bytes_of(machine: SimEnv, name: str) -> bytes:
    file = machine.open(f"{FOLDER}/{name}")
    data = file.read_at(0, file.size())
    file.close()
    return data
