"""Fork: the child's handles refuse, whatever the parent was doing, and the parent goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from tests.process.scripts import run

CHILD = """
import warnings
warnings.simplefilter("ignore")

def fill(database):
    for number in range(300):
        database.put(b"key %03d" % number, b"x" * 100, durability="none")
    database.flush()
    database.keyspace("other")[b"key"] = b"value"
    database[b"last"] = b"in the memtable"

def refused(call):
    try:
        call()
    except DatabaseClosedError as error:
        assert "fork" in str(error), error
        return
    raise AssertionError(f"{call} worked in the child")

def use_everything(database, other, snapshot):
    for call in (
        lambda: database[b"last"], lambda: database.get(b"last"), lambda: b"last" in database,
        lambda: database.get_many([b"last"]), lambda: len(database), lambda: list(database),
        lambda: database.items(), lambda: database.put(b"a", b"b"),
        lambda: database.put(b"a", b"b", durability="none"),
        lambda: database.put(b"a", b"b", durability="interval"),
        lambda: database.put_many([(b"a", b"b")]), lambda: database.delete(b"last"),
        lambda: database.delete_range(b"a", b"z"), lambda: database.keyspace("other"),
        lambda: database.keyspace("new"), database.keyspaces,
        lambda: database.drop_keyspace("other"),
        database.snapshot, database.flush, database.compact, database.sync, database.verify,
        database.stats, lambda: other[b"key"], lambda: other.put(b"a", b"b"), other.flush,
        lambda: snapshot[b"last"], lambda: list(snapshot.items()),
        lambda: snapshot.keyspace("other"),
    ):
        refused(call)

def in_child(function):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(9)
        os._exit(0)
    for _ in range(3000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child hangs")
"""


def test_everything_refuses_in_the_child(tmp_path: Path) -> None:
    run(
        CHILD
        + """
database = holdfast.open(path, settings=TINY)
fill(database)
other, snapshot = database.keyspace("other"), database.snapshot()
files = sorted(os.listdir(path))

def child():
    use_everything(database, other, snapshot)
    snapshot.close()
    database.close()
    database.close()

assert in_child(child) == 0
assert sorted(os.listdir(path)) == files
assert snapshot[b"last"] == b"in the memtable"
snapshot.close()
database[b"after"] = b"the fork"
assert len(database) == 302
assert database.verify().ok
try:
    in_child(lambda: holdfast.open(path))
except DatabaseLockedError:
    pass
database.close()
with holdfast.open(path) as database:
    assert len(database) == 302
""",
        tmp_path / "db",
    )


def test_an_iterator_of_the_parent_refuses_or_is_right_in_the_child(tmp_path: Path) -> None:
    run(
        CHILD
        + """
database = holdfast.open(path, settings=TINY)
fill(database)
expected = list(database.items())
rows = database.items()
first = [next(rows) for _ in range(10)]

def child():
    try:
        rest = list(rows)
    except DatabaseClosedError:
        return
    assert first + rest == expected

assert in_child(child) == 0
assert first + list(rows) == expected
database.close()
""",
        tmp_path / "db",
    )


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "del database, other, snapshot"])
def test_the_end_of_a_child_neither_flushes_nor_unlocks(tmp_path: Path, end: str) -> None:
    path = tmp_path / "db"
    out = run(
        CHILD
        + f"""
database = holdfast.open(path, settings=TINY)
fill(database)
other, snapshot = database.keyspace("other"), database.snapshot()
database.put(b"unsynced", b"of the parent", durability="none")
database._engine.upkeep.wait_idle()
files = {{name: os.path.getsize(os.path.join(path, name)) for name in os.listdir(path)}}
sys.stdout.flush()
if os.fork() == 0:
    {end}
    sys.exit(0)
_, status = os.wait()
assert status == 0, status
assert files == {{name: os.path.getsize(os.path.join(path, name)) for name in os.listdir(path)}}
import subprocess
code = "import sys, holdfast; holdfast.open(sys.argv[1])"
locked = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
assert "DatabaseLockedError" in locked.stderr, locked.stderr
database[b"after"] = b"the fork"
database.close()
print("parent done")
""",
        path,
    )
    assert out == "parent done\n"
    with holdfast.open(str(path)) as database:
        assert b"of the parent" == database[b"unsynced"]
        assert len(database) == 303


def test_forks_while_threads_write_and_background_work_runs(tmp_path: Path) -> None:
    """Locks that other threads held at the fork stay held in the child: it must need none."""
    run(
        CHILD
        + """
database = holdfast.open(path, settings=TINY)
fill(database)
other, snapshot = database.keyspace("other"), database.snapshot()
stopping = threading.Event()
written = [0] * 4

def write(number):
    while not stopping.is_set():
        written[number] += 1
        key = b"thread %d key %d" % (number, written[number] % 50)
        durability = "none" if written[number] % 5 else None
        database.put(key, b"%d" % written[number] * 40, durability=durability)
        if written[number] % 40 == 0:
            list(database.items(limit=50))

threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()

def child():
    import gc
    use_everything(database, other, snapshot)
    snapshot.close()
    gc.collect()
    database.close()

for _ in range(40):
    assert in_child(child) == 0
    time.sleep(0.005)
stopping.set()
for thread in threads:
    thread.join()
for number in range(4):
    for back in range(min(50, written[number])):
        turn = written[number] - back
        key = b"thread %d key %d" % (number, turn % 50)
        assert database[key] == b"%d" % turn * 40
assert database.verify().ok
snapshot.close()
database.close()
""",
        tmp_path / "db",
    )


def test_a_child_may_open_a_database_of_its_own(tmp_path: Path) -> None:
    run(
        CHILD
        + """
database = holdfast.open(path, settings=TINY)
fill(database)

def child():
    with holdfast.open(path + "-child") as mine:
        mine[b"key"] = b"value"
        refused(lambda: database[b"last"])

assert in_child(child) == 0
database.close()

def heir():
    with holdfast.open(path) as mine:
        assert mine[b"last"] == b"in the memtable"

assert in_child(heir) == 0
""",
        tmp_path / "db",
    )


def test_multiprocessing_with_fork(tmp_path: Path) -> None:
    run(
        CHILD
        + """
import multiprocessing

database = holdfast.open(path, settings=TINY)
fill(database)

def work(queue):
    try:
        database.get(b"last")
    except DatabaseClosedError:
        queue.put("refused")

context = multiprocessing.get_context("fork")
queue = context.Queue()
workers = [context.Process(target=work, args=(queue,)) for _ in range(4)]
for worker in workers:
    worker.start()
assert [queue.get(timeout=30) for _ in workers] == ["refused"] * 4
for worker in workers:
    worker.join(30)
    assert worker.exitcode == 0
assert database[b"last"] == b"in the memtable"
database.close()
""",
        tmp_path / "db",
    )


FORK_IN_THE_MIDDLE = """
database = holdfast.open(path, settings=TINY)
pid, ready, go = None, *os.pipe()

def fork():
    global pid
    pid = os.fork()
    if pid == 0:
        # Not before the parent is done.
        assert os.read(ready, 1) == b"g"

def end():
    if pid == 0:
        os._exit(0 if told else 1)
    os.write(go, b"g")
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize("at", [0, 1, 500])
def test_a_child_that_an_iterable_forked_leaves_the_parents_tables_alone(
    tmp_path: Path, at: int
) -> None:
    run(
        CHILD
        + FORK_IN_THE_MIDDLE
        + f"""
def pairs():
    for number in range(600):
        if number == {at}:
            fork()
        yield b"key %03d" % number, (b"child" if pid == 0 else b"parent") * 20

told = False
try:
    database.ingest(pairs())
except DatabaseClosedError as error:
    told = "fork" in str(error)
end()
expected = [(b"key %03d" % number, b"parent" * 20) for number in range(600)]
assert list(database.items()) == expected
assert database.verify().ok
database.close()
with holdfast.open(path) as database:
    assert list(database.items()) == expected
""",
        tmp_path / "db",
    )


def test_a_child_that_the_progress_of_a_backup_forked_leaves_the_copy_alone(
    tmp_path: Path,
) -> None:
    run(
        CHILD
        + FORK_IN_THE_MIDDLE
        + """
fill(database)
told = False
try:
    database.backup(path + ".copy", progress=lambda size, total: pid is None and fork())
except DatabaseClosedError as error:
    told = "fork" in str(error)
end()
with holdfast.open(path + ".copy") as copy:
    assert list(copy.items()) == list(database.items())
    assert copy.verify().ok
database.close()
""",
        tmp_path / "db",
    )


def test_a_child_that_the_progress_of_a_backup_forked_leaves_the_lock_of_the_copy(
    tmp_path: Path,
) -> None:
    """It removed the file, and another copy could begin beside that of its parent."""
    run(
        CHILD
        + """
database = holdfast.open(path, settings=TINY)
fill(database)
pid, told = None, False

def progress(size, total):
    global pid
    if pid is None:
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            assert os.path.exists(path + ".copy/LOCK")
            try:
                database.backup(path + ".copy")
            except DatabaseLockedError:
                return
            raise AssertionError("two copies to one folder")

try:
    database.backup(path + ".copy", progress=progress)
except DatabaseClosedError as error:
    told = "fork" in str(error)
if pid == 0:
    os._exit(0 if told else 1)
with holdfast.open(path + ".copy") as copy:
    assert list(copy.items()) == list(database.items())
    assert copy.verify().ok
database.close()
""",
        tmp_path / "db",
    )
