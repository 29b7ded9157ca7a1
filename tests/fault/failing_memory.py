"""The child process of test_memory: one allocation fails, in each call of the database in turn.

Arguments: a folder, whether only kernels are counted (1) or every allocation of the process (0),
and some of NAME:FIRST:STRIDE: a call, the first allocation that fails, and how many lie between two
that fail. Prints for each how many failed, and then each complaint and each poisoning on a line of
its own.

After the failure the call either happened or did not, and if it returned it did. What reads show is
what a copy of the folder shows that is made as if the process were killed, but for what is not
durable yet, and what another open finds after a close. Whoever is not poisoned goes on working.
A process that waits for longer than any call may take says where and ends.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import gc
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import holdfast

# Imported by the first call that needs it, and the compiler of CPython 3.11 does not survive a
# failed allocation.
import holdfast.engine.ingest
from holdfast.base import DatabasePoisonedError
from holdfast.engine import Submission
from holdfast.env.posix import _fork_callbacks
from holdfast.wal import WriteBatch
from tests.fault.client import TINY

# The library of Zstandard does not survive a failed allocation in its constructors.
SETTINGS = replace(TINY, keyspace=replace(TINY.keyspace, compression_last="lz4"))
PAIRS = {b"key %03d" % number: b"value %d " % number * 8 for number in range(60)}
OLD, NEW, LARGE = b"0", b"1", b"1" * 9000
TOLD = (MemoryError, DatabasePoisonedError)
NO_FRAME = "error return without exception set"
"""What CPython 3.11 says in a SystemError when it has no memory for the frame of a call."""
TP_ITER_OFFSET = 216
"""Of a type's function that makes an iterator, in bytes, where pointers have eight."""
HANG_SECONDS = 30
COMPLAINTS_MAX = 20

Rows = dict[bytes, bytes]
State = dict[str, Rows]

START: State = {
    "default": PAIRS | {b"a": OLD, b"b": OLD, b"c": OLD},
    "other": {b"key %d" % number: OLD for number in range(5)},
}
"""What each call finds, but for those that open."""


def changed(**keyspaces: Rows | None) -> State:
    """Return the state at the start with these keyspaces instead, or without them."""
    state = START | {name: rows for name, rows in keyspaces.items() if rows is not None}
    return {name: rows for name, rows in state.items() if keyspaces.get(name, ()) is not None}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a database, what it returns, and the state behind it."""

    run: Callable[[holdfast.Database], object]
    answer: object = None
    after: State | None = None
    is_durable: bool = True
    """Whether a crash after it finds what it did."""


def putting(value: bytes, durability: str | None = None) -> Call:
    return Call(
        lambda database: database.put(b"a", value, durability=durability),
        after=changed(default=START["default"] | {b"a": value}),
        is_durable=durability is None,
    )


def look(database: holdfast.Database) -> object:
    with database.snapshot() as snapshot:
        return snapshot[b"key 030"], snapshot.keyspace("other").get(b"nothing")


def merge(database: holdfast.Database) -> object:
    database.add(b"a")
    return database[b"a"], dict(database.items())[b"a"], next(database.values(reverse=True))


def merge_tables(database: holdfast.Database) -> object:
    database.add(b"a")
    database.compact()
    return database[b"a"]


class Told:
    """A receiver for which a thread waits."""

    def __init__(self, database: holdfast.Database) -> None:
        self._gate = database._engine.env.gate()

    def receive(self, served: list[Submission]) -> None:
        self._gate.release()

    def wait(self) -> None:
        self._gate.acquire()


def submit(database: holdfast.Database) -> None:
    """Commit as tasks do, which a thread of the database serves, and let that wait for more."""
    for _ in range(2):
        told, batch = Told(database), WriteBatch()
        batch.put(database.id, b"a", NEW)
        submission = Submission(told, batch, None, (database.id,))
        database.submit(submission)
        told.wait()
        if submission.error is not None:
            raise submission.error


def transact(durability: str | None = None) -> Call:
    """A transaction that reads, and writes to two keyspaces, some of it within a savepoint."""

    def call(database: holdfast.Database) -> object:
        with database.transaction(durability=durability) as txn:
            found = txn[b"key 030"]
            other = txn.keyspace("other", create=False)
            other[b"key 1"] = NEW
            with txn.savepoint():
                txn[b"a"] = NEW
                del txn[b"b"]
            return found, txn.get(b"a"), len(other)

    after = changed(
        default={key: value for key, value in START["default"].items() if key != b"b"}
        | {b"a": NEW},
        other=START["other"] | {b"key 1": NEW},
    )
    return Call(call, (PAIRS[b"key 030"], NEW, 5), after, durability is None)


MERGED = changed(default=START["default"] | {b"a": NEW})

CALLS: dict[str, Call] = {
    "put": putting(NEW),
    "put interval": putting(NEW, "interval"),
    "put none": putting(NEW, "none"),
    "put large": putting(LARGE),
    "put large interval": putting(LARGE, "interval"),
    "put large none": putting(LARGE, "none"),
    "batch": Call(
        lambda database: database.put_many({b"a": NEW, b"b": NEW}),
        after=changed(default=START["default"] | {b"a": NEW, b"b": NEW}),
    ),
    "submit": Call(submit, after=changed(default=START["default"] | {b"a": NEW})),
    "ingest": Call(
        lambda database: database.ingest([(key, NEW) for key in sorted(PAIRS)]),
        len(PAIRS),
        changed(default=START["default"] | dict.fromkeys(PAIRS, NEW)),
    ),
    "merge": Call(merge, (NEW, NEW, PAIRS[b"key 059"]), MERGED),
    "merge tables": Call(merge_tables, NEW, MERGED),
    "add": Call(lambda database: database.add(b"a", durability="none"), None, MERGED, False),
    "transaction": transact(),
    "transaction none": transact("none"),
    "del": Call(
        lambda database: database.__delitem__(b"b"),
        after=changed(default={k: v for k, v in START["default"].items() if k != b"b"}),
    ),
    "popitem": Call(
        lambda database: database.popitem(),
        (b"a", OLD),
        changed(default={k: v for k, v in START["default"].items() if k != b"a"}),
    ),
    "delete range": Call(
        lambda database: database.delete_range(b"a", b"c"),
        after=changed(default=PAIRS | {b"c": OLD}),
    ),
    "get": Call(lambda database: database[b"key 030"], PAIRS[b"key 030"]),
    "get many": Call(
        lambda database: database.get_many([b"key 001", b"none", b"key 059", b"a"]),
        [PAIRS[b"key 001"], None, PAIRS[b"key 059"], OLD],
    ),
    "scan": Call(lambda database: list(database.items()), sorted(START["default"].items())),
    "reverse": Call(
        lambda database: list(database.items(reverse=True)),
        sorted(START["default"].items(), reverse=True),
    ),
    "snapshot": Call(look, (PAIRS[b"key 030"], None)),
    "flush": Call(lambda database: database.flush()),
    "compact": Call(lambda database: database.compact()),
    "create": Call(lambda database: database.keyspace("more").name, "more", changed(more={})),
    "drop": Call(lambda database: database.drop_keyspace("other"), after=changed(other=None)),
    "close": Call(lambda database: database.close()),
}
OPENS = ("open new", "open", "open killed")
NAMES = (*CALLS, *OPENS)


class Allocations:
    """The allocations of this process, of which one fails."""

    def __init__(self, *, kernels: bool) -> None:
        library = ctypes.CDLL(None)
        self._arm, self._disarm = library.fail_allocation, library.count_allocations
        self._arm.argtypes = [ctypes.c_long, ctypes.c_int]
        self._disarm.restype = ctypes.c_long
        self._kernels = int(kernels)
        # CPython's issue 152107: without memory for its tuple, the iterator of a dict's items takes
        # itself off a list on which it is not yet. The process crashes then or later.
        iterates = ctypes.c_void_p.from_address(id(type({}.items())) + TP_ITER_OFFSET)
        library.spare_function.argtypes = [ctypes.c_void_p]
        library.spare_function(iterates)

    def fail(self, nth: int, call: Callable[[], object]) -> tuple[bool, object]:
        """Let allocation `nth` of a call fail; return whether there was one, and what it returned
        or raised.
        """
        result: object = None
        self._arm(nth, self._kernels)
        try:
            result = call()
        except BaseException as raised:
            result = raised
        return self._disarm() >= nth, result


def content(database: holdfast.Database) -> State:
    names = database.keyspaces()
    state = {name: dict(database.keyspace(name).items()) for name in names}
    for name, rows in state.items():
        backward = dict(database.keyspace(name).items(reverse=True))
        assert rows == backward, f"{name} reads otherwise backward"
    return state


def difference(state: State) -> str:
    return " and ".join(
        f"{name}: {len(rows)} rows, {[key for key in rows if rows[key] != old.get(key)][:3]} "
        f"differ, {[key for key in old if key not in rows][:3]} are missing"
        for name, rows in state.items()
        for old in [START.get(name, {})]
        if rows != START.get(name)
    )


def prepare(folder: str) -> dict[str, str | None]:
    """Make a database that was closed and one that was not; return their folders by call."""
    closed, killed = f"{folder}/closed", f"{folder}/killed"
    with holdfast.open(closed, settings=SETTINGS) as database:
        database.put_many(PAIRS)
        database.flush()
        database.put_many({b"a": OLD, b"b": OLD, b"c": OLD})
        database.keyspace("other").put_many(START["other"])
        database.flush()
        database.put_many(PAIRS)
        database.delete_range(b"d", b"e")
        database.keyspace("other").put_many(START["other"])
        database._engine.upkeep.wait_idle()
        shutil.copytree(closed, killed)
    return dict.fromkeys(CALLS, closed) | {"open new": None, "open": closed, "open killed": killed}


class Trial:
    """One failed allocation, and what came of it."""

    def __init__(self, name: str, base: str | None, path: str, allocations: Allocations) -> None:
        self.complaints: list[str] = []
        self.poisoning = ""
        self._name = name
        self._base = base
        self._path = path
        self._allocations = allocations
        self._before = START if base is not None else {"default": {}}
        self._after = self._before
        self._is_durable = True
        self._allowed = [self._before]
        self._result: object = None

    def _require(self, *, holds: bool, text: str) -> None:
        if not holds:
            self.complaints.append(text)

    def run(self, nth: int) -> bool:
        """Let allocation `nth` fail; return whether there was one."""
        for path in (self._path, self._path + ".copy"):
            shutil.rmtree(path, ignore_errors=True)
        if self._base is not None:
            shutil.copytree(self._base, self._path)
        opened: list[holdfast.Database] = []
        if self._name in OPENS:
            struck, self._result = self._allocations.fail(
                nth, lambda: holdfast.open(self._path, settings=SETTINGS)
            )
            if isinstance(self._result, holdfast.Database):
                opened.append(self._result)
        else:
            call = CALLS[self._name]
            self._after, self._is_durable = call.after or self._before, call.is_durable
            opened.append(holdfast.open(self._path))
            opened[0].put(b"c", OLD)
            opened[0]._engine.upkeep.wait_idle()
            struck, self._result = self._allocations.fail(nth, lambda: call.run(opened[0]))
            if not isinstance(self._result, BaseException) and call.answer is not None:
                self._require(holds=self._result == call.answer, text="the answer is wrong")
        error = self._result if isinstance(self._result, BaseException) else None
        is_told = error is None or isinstance(error, TOLD)
        if isinstance(error, OSError):
            # The system's own want of memory: an open passes on what the system says.
            is_told = self._name in OPENS and error.errno == errno.ENOMEM
        if isinstance(error, SystemError):
            is_told = str(error) == NO_FRAME
        self._require(holds=is_told, text="told " + "".join(traceback.format_exception(error)))
        for database in opened:
            self._judge(database, is_done=error is None)
        with holdfast.open(self._path, settings=SETTINGS) as database:
            self._judge_found(database)
            database[b"again"] = b"1"
        return struck

    def _judge(self, database: holdfast.Database, *, is_done: bool) -> None:
        allowed = [self._after] if is_done else [self._before, self._after]
        if self._name != "close":
            shown = content(database)
            database._engine.upkeep.wait_idle()
            self._require(holds=shown in allowed, text=f"reads show {difference(shown)}")
            self._judge_crash(allowed if self._is_durable else [self._before, self._after])
            cause = database._engine.write_path._poison
            if cause is not None:
                self.poisoning = "".join(traceback.format_exception(cause)[-3:])
            else:
                allowed = [shown]
                self._go_on(database, shown)
        self._allowed = allowed
        try:
            database.close()
        except DatabasePoisonedError:
            self._require(holds=bool(self.poisoning), text="a close says that it is poisoned")

    def _judge_crash(self, allowed: list[State]) -> None:
        """Open what a process would leave that is killed when its background work has ended."""
        copy = self._path + ".copy"
        shutil.copytree(self._path, copy)
        with holdfast.open(copy) as database:
            found = content(database)
        self._require(holds=found in allowed, text=f"a kill leaves {difference(found)}")

    def _go_on(self, database: holdfast.Database, shown: State) -> None:
        """Use a database that is not poisoned."""
        database[b"probe"] = b"1"
        del database[b"probe"]
        database.flush()
        database.compact()
        database._engine.upkeep.wait_idle()
        report = database.verify()
        self._require(holds=report.ok, text=f"verify: {report.errors}")
        self._require(holds=content(database) == shown, text="what is read changed")

    def _judge_found(self, database: holdfast.Database) -> None:
        found = content(database)
        self._require(holds=found in self._allowed, text=f"another open: {difference(found)}")
        self._require(holds=database.verify().ok, text="another open: verify finds damage")


def run(folder: str, name: str, first: int, stride: int, allocations: Allocations) -> None:
    """Let allocations of a call fail, and print how many did and what came of it."""
    bases = prepare(folder)
    path = os.path.join(folder, "db")
    nth, count, misses, lines = first, 0, 0, []
    descriptors = len(os.listdir("/proc/self/fd"))
    while misses < 2 and len(lines) < COMPLAINTS_MAX:
        # Says which one it was when the process crashes or hangs.
        print(name, nth, file=sys.stderr)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        trial = Trial(name, bases[name], path, allocations)
        try:
            struck = trial.run(nth)
        except Exception as error:
            trial.complaints.append("".join(traceback.format_exception(error)))
            struck = True
        faulthandler.cancel_dump_traceback_later()
        lines += [f"{nth} complaint {text!r}" for text in trial.complaints]
        lines += [f"{nth} poisoned {trial.poisoning!r}"] if trial.poisoning else []
        del trial
        gc.collect()
        # CPython 3.11 leaks what a cell would refer to for which it has no memory. An engine that
        # lives on for that reason must not make every later open ask for more.
        _fork_callbacks.clear()
        left = len(os.listdir("/proc/self/fd"))
        if left > descriptors:
            lines.append(f"{nth} complaint {left - descriptors} descriptors stay open")
            descriptors = left
        count += struck
        misses = 0 if struck else misses + 1
        nth += stride
    print(f"{name}: {count}", *lines, sep="\n", flush=True)


def main(folder: str, kernels: str, *calls: str) -> None:
    allocations = Allocations(kernels=kernels == "1")
    for call in calls:
        name, first, stride = call.split(":")
        place = os.path.join(folder, name)
        os.mkdir(place)
        run(place, name, int(first), int(stride), allocations)
        shutil.rmtree(place)


if __name__ == "__main__":
    main(*sys.argv[1:])
