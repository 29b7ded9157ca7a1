"""The protocol, on every implementation: what each call does and which errors it gives."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.base import DatabaseLockedError
from holdfast.env import Env, FaultEnv, PosixEnv, SimEnv, SyncError, is_disk_full


class Machine:
    """An env and a folder on it."""

    def __init__(self, env: Env, folder: str) -> None:
        self.env = env
        self.folder = folder

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"


def posix(folder: Path) -> Machine:
    return Machine(PosixEnv(), str(folder))


def simulated(folder: Path) -> Machine:
    env = SimEnv(seed=1)
    env.make_dir("/db", site="make_dir")
    return Machine(env, "/db")


def simulated_ext4(folder: Path) -> Machine:
    env = SimEnv(seed=1, profile="ext4-ordered", sector_bytes=4096)
    env.make_dir("db", site="make_dir")
    return Machine(env, "./db")


def faultless(folder: Path) -> Machine:
    inner = simulated(folder)
    return Machine(FaultEnv(inner.env, capacity_bytes=1 << 30), inner.folder)


@pytest.fixture(
    params=[posix, simulated, simulated_ext4, faultless], ids=lambda make: make.__name__
)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    yield request.param(tmp_path)


def raises(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert code == caught.value.errno


def test_a_created_file_is_empty_and_named(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    assert machine.path("f") == file.name
    assert 0 == file.size()
    assert b"" == file.read_at(0, 10)
    assert ["f"] == machine.env.list_dir(machine.folder)
    file.close()


def test_creating_a_name_that_is_taken_is_refused(machine: Machine) -> None:
    machine.env.create(machine.path("f"), site="create").close()
    with pytest.raises(FileExistsError):
        machine.env.create(machine.path("f"), site="create")


def test_opening_a_name_that_is_missing_is_refused(machine: Machine) -> None:
    for call in (machine.env.open, machine.env.file_size, machine.env.list_dir):
        with pytest.raises(FileNotFoundError):
            call(machine.path("nothing"))
    with pytest.raises(FileNotFoundError):
        machine.env.create(machine.path("no/folder"), site="create")
    with pytest.raises(FileNotFoundError):
        machine.env.unlink(machine.path("nothing"), site="unlink")
    with pytest.raises(FileNotFoundError):
        machine.env.rename(machine.path("nothing"), machine.path("x"), site="rename")
    with pytest.raises(FileNotFoundError):
        machine.env.sync_dir(machine.path("nothing"), site="sync_dir")


def test_a_path_through_a_file_is_refused(machine: Machine) -> None:
    machine.env.create(machine.path("f"), site="create").close()
    with pytest.raises(NotADirectoryError):
        machine.env.open(machine.path("f/g"))
    with pytest.raises(NotADirectoryError):
        machine.env.list_dir(machine.path("f"))


def test_a_folder_is_not_a_file(machine: Machine) -> None:
    machine.env.make_dir(machine.path("d"), site="make_dir")
    with pytest.raises(OSError):
        machine.env.open(machine.path("d"))
    with pytest.raises(OSError):
        machine.env.unlink(machine.path("d"), site="unlink")
    with pytest.raises(IsADirectoryError):
        machine.env.file_size(machine.path("d"))
    with pytest.raises(FileExistsError):
        machine.env.make_dir(machine.path("d"), site="make_dir")
    assert [] == machine.env.list_dir(machine.path("d"))


def test_what_was_written_is_read_across_chunks_and_handles(machine: Machine) -> None:
    data = bytes(i * 7 % 251 for i in range(3 * 4096 + 17))
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, data, site="write")
    reader = machine.env.open(machine.path("f"))
    for offset, count in ((0, len(data)), (1, 4096), (4095, 2), (4096, 8192), (8000, 9999)):
        assert data[offset : offset + count] == reader.read_at(offset, count)
    assert b"" == reader.read_at(len(data), 1)
    assert b"" == reader.read_at(1 << 40, 1)
    assert b"" == reader.read_at(0, 0)
    file.write_at(5, b"late", site="write")
    assert b"late" == reader.read_at(5, 4)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_written(machine: Machine, wrap: Callable[[bytes], bytes]) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, wrap(b"abcdef"), site="write")
    file.write_at(3, wrap(b""), site="write")
    assert b"abcdef" == file.read_at(0, 10)
    file.write_at(0, memoryview(b"0123456789")[2:8], site="write")
    assert b"234567" == file.read_at(0, 10)


def test_a_write_keeps_its_bytes_when_the_buffer_is_used_again(machine: Machine) -> None:
    buffer = bytearray(b"first")
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, buffer, site="write")
    buffer[:] = b"other"
    assert b"first" == file.read_at(0, 5)


def test_a_gap_reads_as_zeros(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(9000, b"x", site="write")
    assert 9001 == file.size()
    assert bytes(9000) + b"x" == file.read_at(0, 10000)


@pytest.mark.parametrize("written", [True, False])
def test_an_allocation_grows_with_zeros_and_never_shrinks(machine: Machine, written: bool) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, b"abc", site="write")
    file.allocate(2_000_000, written=written, site="allocate")
    assert 2_000_000 == file.size() == machine.env.file_size(machine.path("f"))
    assert b"abc" + bytes(1_999_997) == file.read_at(0, 2_000_000)
    file.allocate(10, written=written, site="allocate")
    assert 2_000_000 == file.size()


def test_a_truncation_drops_the_end_for_good(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, b"x" * 10_000, site="write")
    file.truncate(5, site="truncate")
    assert b"xxxxx" == file.read_at(0, 10_000)
    file.truncate(9_000, site="truncate")
    assert b"xxxxx" + bytes(8_995) == file.read_at(0, 10_000)


def test_syncs_change_nothing_that_is_read(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, b"x" * 5000, site="write")
    file.sync(site="sync")
    machine.env.sync_dir(machine.folder, site="sync_dir")
    file.write_at(2, b"yy", site="write")
    assert b"xxyyx" == file.read_at(0, 5)


def test_a_write_may_be_synced_in_the_same_step(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_and_sync_at(2, b"abc", site="write", sync_site="sync")
    file.write_and_sync_at(3, memoryview(b"xy"), site="write", sync_site="sync")
    assert b"\0\0axy" == file.read_at(0, 10)
    file.close()
    with pytest.raises(OSError) as caught:
        file.write_and_sync_at(0, b"abc", site="write", sync_site="sync")
    assert errno.EBADF == caught.value.errno
    assert not isinstance(caught.value, SyncError)


def test_a_file_opened_for_reading_refuses_writes(machine: Machine) -> None:
    machine.env.create(machine.path("f"), site="create").close()
    file = machine.env.open(machine.path("f"))
    raises(errno.EBADF, lambda: file.write_at(0, b"x", site="write"))
    with pytest.raises(OSError):
        file.truncate(0, site="truncate")
    with pytest.raises(OSError):
        file.allocate(1, written=True, site="allocate")


def test_a_closed_file_refuses_everything_but_a_second_close(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.close()
    file.close()
    raises(errno.EBADF, lambda: file.read_at(0, 1))
    raises(errno.EBADF, lambda: file.write_at(0, b"x", site="write"))
    raises(errno.EBADF, lambda: file.sync(site="sync"))
    raises(errno.EBADF, lambda: file.truncate(0, site="truncate"))
    raises(errno.EBADF, lambda: file.allocate(1, written=True, site="allocate"))
    raises(errno.EBADF, file.size)
    assert -1 == file.fileno()


def test_a_negative_offset_is_refused(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    raises(errno.EINVAL, lambda: file.read_at(-1, 1))
    raises(errno.EINVAL, lambda: file.write_at(-1, b"x", site="write"))
    raises(errno.EINVAL, lambda: file.truncate(-1, site="truncate"))


def test_a_rename_moves_the_file_over_another(machine: Machine) -> None:
    for name in ("a", "b"):
        file = machine.env.create(machine.path(name), site="create")
        file.write_at(0, name.encode(), site="write")
        file.close()
    old = machine.env.open(machine.path("b"))
    machine.env.rename(machine.path("a"), machine.path("b"), site="rename")
    assert ["b"] == machine.env.list_dir(machine.folder)
    assert b"a" == machine.env.open(machine.path("b")).read_at(0, 1)
    assert b"b" == old.read_at(0, 1)


def test_a_rename_to_itself_changes_nothing(machine: Machine) -> None:
    machine.env.create(machine.path("a"), site="create").close()
    machine.env.rename(machine.path("a"), machine.path("a"), site="rename")
    assert ["a"] == machine.env.list_dir(machine.folder)


def test_a_rename_of_a_file_over_a_folder_is_refused(machine: Machine) -> None:
    machine.env.create(machine.path("a"), site="create").close()
    machine.env.make_dir(machine.path("d"), site="make_dir")
    with pytest.raises(IsADirectoryError):
        machine.env.rename(machine.path("a"), machine.path("d"), site="rename")
    with pytest.raises(NotADirectoryError):
        machine.env.rename(machine.path("d"), machine.path("a"), site="rename")


def test_an_unlinked_file_stays_readable_and_writable_through_its_handle(machine: Machine) -> None:
    file = machine.env.create(machine.path("f"), site="create")
    file.write_at(0, b"kept", site="write")
    machine.env.unlink(machine.path("f"), site="unlink")
    assert [] == machine.env.list_dir(machine.folder)
    file.write_at(4, b"more", site="write")
    file.sync(site="sync")
    assert b"keptmore" == file.read_at(0, 10)
    file.close()


def test_names_come_sorted(machine: Machine) -> None:
    for name in ("b", "a", "10", "9"):
        machine.env.create(machine.path(name), site="create").close()
    assert ["10", "9", "a", "b"] == machine.env.list_dir(machine.folder)


def test_a_lock_is_exclusive_until_released(machine: Machine) -> None:
    lock = machine.env.lock_file(machine.path("LOCK"))
    assert machine.path("LOCK") == lock.name
    with pytest.raises(DatabaseLockedError, match="LOCK"):
        machine.env.lock_file(machine.path("LOCK"))
    machine.env.lock_file(machine.path("OTHER")).release()
    lock.release()
    lock.release()
    again = machine.env.lock_file(machine.path("LOCK"))
    lock.release()
    with pytest.raises(DatabaseLockedError):
        machine.env.lock_file(machine.path("LOCK"))
    again.release()
    assert ["LOCK", "OTHER"] == machine.env.list_dir(machine.folder)


def test_the_clocks_advance(machine: Machine) -> None:
    before, wall = machine.env.monotonic(), machine.env.wall_time()
    machine.env.sleep(0.01)
    assert machine.env.monotonic() - before >= 0.01
    assert machine.env.wall_time() > wall > 1_600_000_000


def test_random_bytes_differ(machine: Machine) -> None:
    first, second = machine.env.random_bytes(16), machine.env.random_bytes(16)
    assert 16 == len(first) == len(second)
    assert first != second
    assert b"" == machine.env.random_bytes(0)


def test_a_mutex_is_taken_once_and_released_by_anyone(machine: Machine) -> None:
    mutex = machine.env.mutex()
    assert mutex.acquire()
    assert not mutex.acquire(blocking=False)
    assert not mutex.acquire(timeout=0.001)
    task = machine.env.spawn("releaser", mutex.release)
    task.join()
    with mutex as taken:
        assert taken
    with pytest.raises(RuntimeError):
        mutex.release()


def test_a_condition_without_its_mutex_is_refused(machine: Machine) -> None:
    condition = machine.env.condition(machine.env.mutex())
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError):
            call()


def test_a_condition_wait_ends_at_its_timeout(machine: Machine) -> None:
    mutex = machine.env.mutex()
    condition = machine.env.condition(mutex)
    with mutex:
        assert not condition.wait(timeout=0.001)
        assert not mutex.acquire(blocking=False)


def test_tasks_hand_work_over_through_a_condition(machine: Machine) -> None:
    env = machine.env
    mutex = env.mutex()
    condition = env.condition(mutex)
    waiting: list[int] = []
    done: list[int] = []

    def consume() -> None:
        while True:
            with mutex:
                while not waiting:
                    condition.wait()
                item = waiting.pop(0)
            if item < 0:
                return
            done.append(item)

    tasks = [env.spawn(f"consumer-{i}", consume) for i in range(3)]
    for item in range(20):
        with mutex:
            waiting.append(item)
            condition.notify()
    with mutex:
        waiting.extend([-1, -1, -1])
        condition.notify_all()
    for task in tasks:
        task.join()
    assert list(range(20)) == sorted(done)
    assert ["consumer-0", "consumer-1", "consumer-2"] == [task.name for task in tasks]


def test_a_join_raises_what_the_task_raised(machine: Machine) -> None:
    def fail() -> None:
        raise KeyError("lost")

    task = machine.env.spawn("failing", fail)
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            task.join()


def test_threads_have_different_numbers(machine: Machine) -> None:
    numbers = [machine.env.thread_id()]
    machine.env.spawn("other", lambda: numbers.append(machine.env.thread_id())).join()
    assert numbers[0] == machine.env.thread_id() != numbers[1]


def test_a_fork_callback_is_accepted(machine: Machine) -> None:
    def callback() -> None:
        raise AssertionError("nobody forked")

    machine.env.on_fork(callback)


def test_a_full_disk_is_recognised() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "full"))
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(OSError(errno.EIO, "broken"))
    assert not is_disk_full(OSError("no number"))
