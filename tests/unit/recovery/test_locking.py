"""Who may have a database open beside whom, and where there is no lock file."""

import errno

import pytest

import holdfast
from holdfast.base import DatabaseLockedError, marks_seen
from holdfast.env import FaultEnv, FaultRule, File, SimEnv
from holdfast.recovery import LOCK_NAME, check_folder, lock_for_reading, lock_for_writing

FOLDER = "/db"
PATH = f"{FOLDER}/{LOCK_NAME}"


@pytest.fixture
def machine() -> SimEnv:
    """A machine with a closed database that has two pairs."""
    env = SimEnv()
    with holdfast.open(FOLDER, env=env) as database:
        database[b"table"] = b"1"
        database.flush()
        database[b"log"] = b"2"
    return env


def test_readers_go_together_and_not_beside_a_writer(machine: SimEnv) -> None:
    first, second = (holdfast.open(FOLDER, env=machine, read_only=True) for _ in range(2))
    assert dict(first.items()) == dict(second.items()) == {b"table": b"1", b"log": b"2"}
    assert check_folder(machine, FOLDER).ok
    with pytest.raises(DatabaseLockedError):
        holdfast.open(FOLDER, env=machine)
    first.close()
    with pytest.raises(DatabaseLockedError):
        lock_for_writing(machine, FOLDER)
    assert b"1" == second[b"table"]
    second.close()
    with holdfast.open(FOLDER, env=machine):
        for attempt in (
            lambda: holdfast.open(FOLDER, env=machine, read_only=True),
            lambda: lock_for_reading(machine, FOLDER),
            lambda: check_folder(machine, FOLDER),
        ):
            with pytest.raises(DatabaseLockedError):
                attempt()
    assert [] == machine.unreturned()


def test_a_reader_changes_nothing(machine: SimEnv) -> None:
    before = machine.op_count
    with holdfast.open(FOLDER, env=machine, read_only=True) as database:
        assert 2 == len(database)
    assert check_folder(machine, FOLDER).ok
    assert before == machine.op_count


def test_the_first_reader_of_a_folder_without_a_lock_makes_it(machine: SimEnv) -> None:
    machine.unlink(PATH, site="test")
    with holdfast.open(FOLDER, env=machine, read_only=True):
        assert "database.lock.create" == machine.op_log[-1].site
        with pytest.raises(DatabaseLockedError):
            holdfast.open(FOLDER, env=machine)


def test_another_reader_may_make_the_lock_first(machine: SimEnv) -> None:
    machine.unlink(PATH, site="test")
    race = FaultEnv(machine, [FaultRule(kind="create", error=errno.EEXIST, effect=_take)])
    lock = lock_for_reading(race, FOLDER)
    assert lock is not None
    with pytest.raises(DatabaseLockedError):
        lock_for_writing(machine, FOLDER)
    lock.release()


def _take(call, file) -> None:
    call().close()


@pytest.mark.parametrize(
    "code", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT]
)
def test_where_no_lock_can_be_made_there_is_none(machine: SimEnv, code: int) -> None:
    machine.unlink(PATH, site="test")
    before = machine.op_count
    disk = FaultEnv(machine, [FaultRule(kind="create", times=None, error=code)])
    with holdfast.open(FOLDER, env=disk, read_only=True) as database:
        assert 2 == len(database)
        assert "recovery.read_without_lock" in marks_seen()
    assert check_folder(disk, FOLDER).ok
    assert before == machine.op_count
    assert [] == machine.unreturned()


@pytest.mark.parametrize("kind", ["create", "lock_file"])
def test_other_errors_of_the_lock_are_told(machine: SimEnv, kind: str) -> None:
    machine.unlink(PATH, site="test")
    nth = 2 if kind == "lock_file" else 1
    disk = FaultEnv(machine, [FaultRule(kind=kind, nth=nth, error=errno.EIO)])
    with pytest.raises(OSError, match="Input/output error"):
        holdfast.open(FOLDER, env=disk, read_only=True)
    assert [] == machine.unreturned()


def test_a_refused_reader_leaves_the_lock_that_others_may_have(machine: SimEnv) -> None:
    machine.unlink(PATH, site="test")
    with pytest.raises(holdfast.WrongKeyError):
        holdfast.open(FOLDER, env=machine, read_only=True, key=bytes(32))
    assert LOCK_NAME in machine.list_dir(FOLDER)
    holdfast.open(FOLDER, env=machine).close()


class VanishingEnv(FaultEnv):
    """The lock file goes as soon as it is made, so many times."""

    times = 0

    def create(self, path: str, *, site: str) -> File:
        file = super().create(path, site=site)
        if site == "database.lock.create" and self.times > 0:
            self.times -= 1
            file.close()
            self.inner.unlink(path, site="test")
        return file


@pytest.mark.parametrize("times", [1, 100])
def test_a_lock_file_may_go_while_it_is_taken(machine: SimEnv, times: int) -> None:
    machine.unlink(PATH, site="test")
    env = VanishingEnv(machine)
    env.times = times
    if times > 1:
        with pytest.raises(OSError, match="keeps being removed"):
            lock_for_reading(env, FOLDER)
        return
    lock = lock_for_reading(env, FOLDER)
    assert lock is not None
    with pytest.raises(DatabaseLockedError):
        lock_for_writing(machine, FOLDER)
    lock.release()
