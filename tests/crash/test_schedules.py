"""Named races under the seeded scheduler: each seed is another schedule, the same one every time.

After each, the power goes and takes everything that was not synced.
"""

import pytest

from holdfast.base import DatabaseClosedError
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv
from holdfast.testing.oracle import DEFAULT, FOLDER, abandon, content, rows
from holdfast.testing.workload import TINY

SEEDS = range(24)


class Writer:
    """A task that commits until it has done so often, or until the database is closed."""

    def __init__(self, machine: SimEnv, database: Database, number: int, count: int) -> None:
        self.returned: dict[bytes, bytes] = {}
        self.durable: dict[bytes, bytes] = {}
        self.refused: list[bytes] = []
        self._database = database
        self._number = number
        self._count = count
        self.task = machine.spawn(f"writer-{number}", self._run)

    def _run(self) -> None:
        for turn in range(self._count):
            key, value = b"%d/%03d" % (self._number, turn), b"%d" % turn * 40
            durability = "none" if (turn + self._number) % 3 == 0 else None
            try:
                self._database.put(key, value, durability=durability)
            except DatabaseClosedError:
                self.refused.append(key)
                return
            self.returned[key] = value
            if durability is None:
                self.durable = dict(self.returned)


def found_after_a_power_cut(machine: SimEnv) -> dict[bytes, bytes]:
    again = CrashPoint(machine).state("none").build()
    with open_database(FOLDER, create=False, env=again) as database:
        assert not database.verify().errors
        return content(database)[DEFAULT]


def everything(writers: list[Writer]) -> dict[bytes, bytes]:
    return {key: value for writer in writers for key, value in writer.returned.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_flush_against_commit(seed: int) -> None:
    """What has returned before a flush begins is durable when it ends, and nothing is lost between
    the memtable that is frozen and the one that follows.
    """
    machine = SimEnv(seed)
    database = open_database(FOLDER, settings=TINY, env=machine)
    writers = [Writer(machine, database, number, 12) for number in range(2)]
    for _ in range(4):
        machine.sleep(150e-6)
        before = everything(writers)
        database.flush()
        assert before.items() <= found_after_a_power_cut(machine).items()
    for writer in writers:
        writer.task.join()
    assert everything(writers) == content(database)[DEFAULT]
    found = found_after_a_power_cut(machine)
    for writer in writers:
        assert writer.durable.items() <= found.items()
    database.close()
    assert machine.unreturned() == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_compaction_against_cursor(seed: int, reverse: bool) -> None:
    """A cursor shows the moment it began at, while its tables are replaced and removed."""
    machine = SimEnv(seed)
    database = open_database(FOLDER, settings=TINY, env=machine)
    for turn in range(3):
        pairs = {b"key/%03d" % key: b"%d" % turn * 30 for key in range(turn, 40, 2)}
        database.put_many(pairs)
        database.flush()
    expected = sorted(content(database)[DEFAULT].items(), reverse=reverse)

    def change() -> None:
        database.delete_range(b"key/005", b"key/020")
        database.compact()
        database.put_many({b"key/%03d" % key: b"new" for key in range(0, 40, 3)})
        database.flush()
        database.compact()

    cursor = iter(database.items(reverse=reverse))
    found = [next(cursor)]
    task = machine.spawn("changer", change)
    for row in cursor:
        found.append(row)
        machine.sleep(60e-6)
    task.join()
    assert expected == found
    assert len(rows(database.items())) < len(expected)
    database.close()
    assert machine.unreturned() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_close_against_commit(seed: int) -> None:
    """A commit that returned is there, one that was refused is not, and nothing waits for ever."""
    machine = SimEnv(seed)
    database = open_database(FOLDER, settings=TINY, env=machine)
    writers = [Writer(machine, database, number, 1000) for number in range(3)]
    machine.sleep(1e-3 + seed * 37e-6)
    database.close()
    for writer in writers:
        writer.task.join()
        assert len(writer.refused) == 1
    assert machine.unreturned() == []
    assert everything(writers) == found_after_a_power_cut(machine)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_closes(seed: int) -> None:
    """Whoever closes, when a close returns the database is closed and its lock is free."""
    machine = SimEnv(seed)
    database = open_database(FOLDER, settings=TINY, env=machine)
    writer = Writer(machine, database, 0, 1000)
    closed: list[list[str]] = []

    def close() -> None:
        database.close()
        closed.append([line for line in machine.unreturned() if "task" not in line])

    machine.sleep(1e-3 + seed * 37e-6)
    tasks = [machine.spawn(f"closer-{number}", close) for number in range(2)]
    for task in [*tasks, writer.task]:
        task.join()
    assert closed == [[], []]
    assert machine.unreturned() == []
    assert writer.returned == found_after_a_power_cut(machine)


def test_the_schedules_differ() -> None:
    """Several seeds are several orders of the same calls."""

    def order(seed: int) -> tuple[int, ...]:
        machine = SimEnv(seed)
        database = open_database(FOLDER, settings=TINY, env=machine)
        writers = [Writer(machine, database, number, 6) for number in range(2)]
        for writer in writers:
            writer.task.join()
        abandon(machine, database)
        return tuple(done.task for done in machine.op_log)

    assert len({order(seed) for seed in SEEDS}) > len(SEEDS) // 2
    assert order(3) == order(3)
