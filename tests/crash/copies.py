"""Repairs and backups under power cuts: what each state of the disk must still hold."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

import holdfast
from holdfast import CorruptionError, DatabaseSettings, FormatError, KeyspaceSettings, Outcome
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, CrashState, Env, FaultEnv, FaultRule, SimEnv
from holdfast.recovery import UNFINISHED
from holdfast.testing.oracle import Wrap
from tests.crash.cuts import Prepared, booted, bytes_of, check_opens, content
from tests.hostile.folders import FOLDER, Files, State, crashed_database, machine_with

KEY = bytes(range(32))
TARGET = "/new"
_IGNORED = frozenset(("LOCK", "LIVE", "WATCH"))


# --- repair


def durable(files: Files, but: str = "nothing") -> SimEnv:
    """A machine with these files, all of them durable, and `but` only as far as its name."""
    machine = machine_with(files)
    for name in files:
        if name != but:
            file = machine.open(f"{FOLDER}/{name}")
            file.sync(site="test")
            file.close()
    machine.sync_dir(FOLDER, site="test")
    machine.sync_dir("/", site="test")
    return machine


@functools.cache
def _files(key: bytes | None) -> tuple[Files, list[State]]:
    return crashed_database(key=key)


def damaged(kind: str, key: bytes | None) -> Files:
    """The files of a database of which one is damaged."""
    files, _ = _files(key)
    name = min(name for name in files if name.endswith(f".{kind}"))
    at = {"table": 40, "wal": 5000, "manifest": 200}[kind]
    data = bytearray(files[name])
    for place in range(at, at + 8):
        data[place] ^= 0x55
    return files | {name: bytes(data)}


class Repair:
    """The judge of a repair of some files, in place or into another folder."""

    def __init__(
        self, files: Files, target: str | None, key: bytes | None, *, unsynced: str = "nothing"
    ) -> None:
        self.files = {name: data for name, data in files.items() if name not in _IGNORED}
        self.target = target
        self.key = key
        self.unsynced = unsynced
        machine = self.machine()
        report = holdfast.repair(FOLDER, target, env=machine, key=key)
        assert report.is_changed
        self.aside = bytes_of(machine, report.set_aside) if report.set_aside else {}
        assert (target is None) == bool(self.aside)
        with holdfast.open(target or FOLDER, create=False, env=machine, key=key) as database:
            self.expected = content(database)
        assert sum(map(len, self.expected.values())) > 20
        self._opened: set[str] = set()
        machine.cut_power()

    def machine(self) -> SimEnv:
        return durable(self.files, self.unsynced)

    def prepare(self, wrap: Wrap) -> Prepared:
        machine = self.machine()
        return machine, self.call(wrap(machine))

    def prepare_begun(self, site: str, wrap: Wrap) -> Prepared:
        """The same after a power cut behind the first call at `site`, which kept everything."""
        machine = self.machine()
        points: list[CrashPoint] = []
        machine.observer = lambda operation: (
            points.append(CrashPoint(machine)) if operation.site == site else None
        )
        self.call(machine)()
        machine.cut_power()
        (state,) = points[0].states(("all",))
        again = booted(state, life=0)
        return again, self.call(wrap(again))

    def prepare_failed(self, site: str, wrap: Wrap) -> Prepared:
        """The same after one that an error ended at `site`; the machine went on."""
        machine = self.machine()
        with pytest.raises(OSError, match="Input/output"):
            self.call(FaultEnv(machine, [FaultRule(site=site)]))()
        return machine, self.call(wrap(machine))

    def call(self, env: Env) -> Callable[[], object]:
        return lambda: holdfast.repair(FOLDER, self.target, env=env, key=self.key)

    def judge(self, state: CrashState, *, is_over: bool) -> None:
        machine = booted(state)
        if self.target is None:
            self._judge_in_place(machine, is_over=is_over)
        else:
            self._judge_elsewhere(machine, state, is_over=is_over)
        machine.cut_power()

    def _judge_in_place(self, machine: SimEnv, *, is_over: bool) -> None:
        """The repaired one is in force or can be made again, with every original: where it was, or
        in a folder which says that it has all of them.
        """
        self._check_folders_aside(machine)
        report = holdfast.repair(FOLDER, env=machine, key=self.key)
        assert report.outcome is Outcome.HEALTHY or not is_over
        self._check_folders_aside(machine)
        self._check_opens(machine, FOLDER)
        # The open removed what no manifest names.
        folders = [FOLDER, *self._folders_aside(machine)]
        found = [
            held for folder in folders if UNFINISHED not in (held := bytes_of(machine, folder))
        ]
        for name, data in self.aside.items():
            assert data in [held.get(name) for held in found], f"{name} is gone"

    def _folders_aside(self, machine: SimEnv) -> list[str]:
        names = machine.list_dir(FOLDER)
        return [f"{FOLDER}/{name}" for name in names if name.startswith("damaged-")]

    def _check_folders_aside(self, machine: SimEnv) -> None:
        """A folder of originals has all of them, or has the mark and copies of what is there."""
        here = bytes_of(machine, FOLDER)
        for folder in self._folders_aside(machine):
            held = bytes_of(machine, folder)
            if UNFINISHED in held:
                gone = [name for name in held if name != UNFINISHED and name not in here]
                assert not gone, f"{folder} has the mark, and {gone} nowhere else"
            elif held:
                bad = [name for name, data in self.aside.items() if held.get(name) != data]
                assert not bad, f"{folder} has no mark and lacks {bad}"

    def _judge_elsewhere(self, machine: SimEnv, state: CrashState, *, is_over: bool) -> None:
        """The originals are as they were; the other folder has the repaired database, or what the
        same call replaces, and no open takes for a database.
        """
        target = self.target or ""
        self._check_originals(machine)
        if not check_copy(machine, state, target, self.key, is_over=is_over):
            holdfast.repair(FOLDER, target, env=machine, key=self.key)
        self._check_opens(machine, target)
        self._check_originals(machine)

    def _check_originals(self, machine: SimEnv) -> None:
        found = bytes_of(machine, FOLDER)
        assert {name: found.get(name) for name in self.files} == self.files

    def _check_opens(self, machine: SimEnv, folder: str) -> None:
        (disk,) = CrashPoint(machine).states(("all",))
        if disk.content_hash not in self._opened:
            check_opens(machine, folder, self.key, self.expected)
            self._opened.add(disk.content_hash)


def check_copy(
    machine: SimEnv, state: CrashState, folder: str, key: bytes | None, *, is_over: bool
) -> bool:
    """Return whether there is a copy that is whole. Half of one is not taken for a database, nor
    for a place to make one.
    """
    names = set(bytes_of(machine, folder))
    if any(name.startswith("CURRENT.") for name in names):
        assert not (is_over and UNFINISHED in names), "a whole copy has the mark"
        return True
    assert not is_over, "the copy is gone"
    if names - {"LOCK"}:
        other = booted(state)
        with pytest.raises((CorruptionError, FormatError)):
            open_database(folder, env=other, key=key)
        other.cut_power()
    return False


# --- backup


SMALL = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=64 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=1 << 16, page_bytes=1024, table_bytes=1 << 16),
)


def small(env: Env, key: bytes | None = None) -> Database:
    """An open database with two keyspaces, tables, and a row that is not synced."""
    database = open_database(FOLDER, env=env, key=key, settings=SMALL)
    database.put_many((b"key %03d" % n, b"value %d" % n) for n in range(100))
    database.keyspace("other")[b"k"] = b"v"
    database.flush()
    database.put(b"unsynced", b"1", durability="none")
    database._engine.upkeep.wait_idle()
    return database


class Backup:
    """The judge of a backup to a folder that is there already, or is not."""

    def __init__(
        self, key: bytes | None, *, has_folder: bool = False, fault: FaultRule | None = None
    ) -> None:
        self.key = key
        self.has_folder = has_folder
        self.fault = fault
        self.expected: State = {}
        self.verdicts: set[str] = set()

    def prepare(self, wrap: Wrap) -> Prepared:
        machine = SimEnv(5)
        env = FaultEnv(wrap(machine))
        database = small(env, self.key)
        self.expected = content(database)
        if self.has_folder:
            machine.make_dir(TARGET, site="test.folder")
            machine.sync_dir("/", site="test.folder_sync")
        if self.fault is None:
            return machine, lambda: database.backup(TARGET)
        env.add(self.fault)
        return machine, lambda: self._fail(database)

    def _fail(self, database: Database) -> None:
        with pytest.raises(OSError, match="Input/output"):
            database.backup(TARGET)

    def judge(self, state: CrashState, *, is_over: bool) -> None:
        """The origin lost nothing; the copy is whole, or what the next backup replaces, and no open
        takes for a database.
        """
        machine = booted(state)
        names = set(bytes_of(machine, TARGET))
        has_to_be_whole = is_over and self.fault is None
        is_whole = check_copy(machine, state, TARGET, self.key, is_over=has_to_be_whole)
        assert not (is_whole and is_over and self.fault), "a copy that failed is there"
        self.verdicts.add("whole" if is_whole else "begun" if names - {"LOCK"} else "empty")
        if is_whole:
            check_opens(machine, TARGET, self.key, self.expected)
        with open_database(FOLDER, create=False, env=machine, key=self.key) as database:
            found = content(database)
            if is_whole:
                with pytest.raises(FileExistsError):
                    database.backup(TARGET)
            else:
                database.backup(TARGET)
                check_opens(machine, TARGET, self.key, found)
        # What was not synced may be lost until the backup has synced it.
        found["default"].setdefault(b"unsynced", b"1")
        assert found == self.expected
        machine.cut_power()
