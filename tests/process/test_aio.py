"""holdfast.aio in processes that are interrupted, forked or ended at a bad moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from tests.process.scripts import environment, run
from tests.process.test_fork import CHILD

INTERRUPTED = """
import asyncio, random
import holdfast.aio
chance = random.Random(int(sys.argv[2]))
returned, begun = {}, {}

async def client(db, number):
    turn = 0
    while True:
        turn += 1
        key, value = b"%d/%d" % (number, turn % 20), b"%d" % turn * 20
        begun.setdefault(key, set()).add(value)
        await db.put_many({key + b"a": value, key + b"b": value},
                          durability=("commit", "none")[turn % 2])
        returned[key] = value
        begun[key] = {value}
        assert await db.get(key + b"a") == value

async def main():
    async with await holdfast.aio.open(path, settings=TINY) as db:
        await asyncio.gather(*[client(db, number) for number in range(20)])

def interrupt(number, frame):
    raise KeyboardInterrupt

turns = 0
how = sys.argv[3]
for life in range(8):
    if how == "anywhere":
        # Not the handler of asyncio.run, which cancels: this one raises wherever the loop is.
        signal.signal(signal.SIGINT, interrupt)
    else:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    # A loop that is interrupted between taking a step off its list and running it forgets the task,
    # and then waits for its end for ever: the next interrupt ends that.
    again = 5.0 if how == "anywhere" else 0.0
    signal.setitimer(signal.ITIMER_REAL, 0.15 + chance.random() * 0.2, again)
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except DatabasePoisonedError:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    import gc
    gc.collect()
    from holdfast.engine.opening import _close_all
    _close_all()
    for attempt in range(1000):
        # An open that was cancelled is closed by its thread.
        try:
            db = holdfast.open(path)
        except DatabaseLockedError:
            time.sleep(0.01)
        else:
            break
    with db:
        found = dict(db.items())
        for key, values in begun.items():
            assert found.get(key + b"a") == found.get(key + b"b"), "half of a batch"
            if key in returned:
                assert found[key + b"a"] in values, (key, found[key + b"a"], values)
        assert db.verify().ok
        for key in list(begun):
            if key + b"a" in found:
                returned[key] = found[key + b"a"]
                begun[key] = {returned[key]}
            else:
                del begun[key]
    turns += len(returned)
print(turns)
"""


@pytest.mark.parametrize("how", ["asyncio", "anywhere"])
@pytest.mark.parametrize("seed", [1, 2])
def test_interrupts_lose_nothing_and_leave_no_half(tmp_path: Path, how: str, seed: int) -> None:
    assert int(run(INTERRUPTED, tmp_path / "db", seed, how)) > 20


def test_everything_refuses_in_a_forked_child(tmp_path: Path) -> None:
    run(
        CHILD
        + """
import asyncio
import holdfast.aio

async def use_everything(db, other, view, rows):
    async def all_rows():
        return [row async for row in rows]
    for call in (
        db.get(b"k"), db.get_many([b"k"]), db.put(b"a", b"b"), db.put_many([(b"a", b"b")]),
        db.put(b"a", b"b", durability="none"), db.delete(b"k"), db.delete_range(b"a", b"z"),
        db.delete_range(None, None), db.clear(), db.count(), db.keyspace("other"), db.keyspaces(),
        db.drop_keyspace("other"), db.flush(), db.compact(), db.sync(), db.verify(), db.stats(),
        other.get(b"k"), other.put(b"a", b"b"), view.get(b"k"), view.count(), all_rows(),
    ):
        try:
            await call
        except DatabaseClosedError as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError(f"{call} worked in the child")
    await view.close()
    await db.close()
    await db.close()

async def main():
    db = await holdfast.aio.open(path, settings=TINY)
    other = await db.keyspace("other")
    await asyncio.gather(*[db.put(b"%d" % n, b"1") for n in range(200)], db.flush(), db.stats())
    return db, other, db.snapshot(), db.items()

db, other, view, rows = asyncio.run(main())
assert in_child(lambda: asyncio.run(use_everything(db, other, view, rows))) == 0

async def after():
    await db.put(b"after", b"the fork")
    assert await db.count() == 201
    assert (await db.verify()).ok
    await view.close()
    await db.close()

asyncio.run(after())
""",
        tmp_path / "db",
    )


def test_a_process_that_ends_without_a_close_loses_nothing_that_returned(tmp_path: Path) -> None:
    run(
        """
import asyncio
import holdfast.aio
async def main():
    db = await holdfast.aio.open(path)
    await asyncio.gather(*[db.put(b"%d" % n, b"1", durability="none") for n in range(100)])
    await db.put(b"durable", b"1")
asyncio.run(main())
""",
        tmp_path / "db",
    )
    with holdfast.open(tmp_path / "db") as database:
        assert len(database) == 101


def test_importing_holdfast_does_not_load_asyncio() -> None:
    code = "import sys, holdfast; holdfast.open; print('asyncio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout == "False\n"
