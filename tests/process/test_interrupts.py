"""KeyboardInterrupt at any moment: no acknowledged commit is lost, none is half there, no deadlock.

A timer sends signals to the main thread, which writes, reads, flushes and compacts, while other
threads write too. An interrupted call may have taken effect or not; all others did what they said.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from tests.process.scripts import run

BODY = """
import random
seed, seconds, with_threads = int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "threads"
chance = random.Random(seed)
database = holdfast.open(path, settings=TINY)
stopping = threading.Event()
errors = []

def write(number):
    turn = 0
    model = {}
    try:
        while not stopping.is_set():
            turn += 1
            key = b"thread %d key %d" % (number, turn % 20)
            value = b"%d " % turn * 30
            database.put(key, value, durability=("none", None, "interval")[turn % 3])
            model[key] = value
            assert database[key] == value
        for key, value in model.items():
            assert database[key] == value, key
    except BaseException as error:
        errors.append(error)

# Each key of the model may hold one of several values after an interrupted write.
model = {b"pair a": {b"0"}, b"pair b": {b"0"}}
database.put_many({b"pair a": b"0", b"pair b": b"0"})

def check(found):
    assert found[b"pair a"] == found[b"pair b"], "half of a batch"
    for key, values in model.items():
        assert found.get(key) in values, (key, found.get(key), values)

def step(turn):
    what = chance.random()
    key, value = b"key %d" % chance.randrange(30), b"%d " % turn * 20
    if what < 0.5:
        model.setdefault(key, {None}).add(value)
        database.put(key, value, durability=chance.choice(["none", None, "interval"]))
        model[key] = {value}
    elif what < 0.65:
        model.setdefault(key, {None}).add(None)
        database.delete(key)
        model[key] = {None}
    elif what < 0.85:
        for name in b"pair a", b"pair b":
            model[name].add(value)
        database.put_many({b"pair a": value, b"pair b": value})
        model[b"pair a"], model[b"pair b"] = {value}, {value}
    elif what < 0.97:
        check(dict(database.items()))
    elif what < 0.99:
        database.flush()
    else:
        database.compact()

threads = [threading.Thread(target=write, args=(n,)) for n in range(3 if with_threads else 0)]
for thread in threads:
    thread.start()
until = time.monotonic() + seconds
turn = interrupts = poisonings = 0
in_step = False

def interrupt(number, frame):
    # Only what the engine does is interrupted, so that this model stays right.
    if in_step:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
while time.monotonic() < until and not errors:
    turn += 1
    signal.setitimer(signal.ITIMER_REAL, chance.random() ** 3 * 0.004 + 1e-6)
    try:
        in_step = True
        step(turn)
        in_step = False
    except KeyboardInterrupt:
        in_step = False
        interrupts += 1
    except DatabasePoisonedError:
        in_step = False
        poisonings += 1
        break
    finally:
        in_step = False
        signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
stopping.set()
for thread in threads:
    thread.join(30)
    assert not thread.is_alive(), "a thread hangs"
if not poisonings:
    for error in errors:
        raise error
check(dict(database.items()))
if not poisonings and not database.stats().poisoned:
    assert database.verify().ok
else:
    poisonings = 1
try:
    database.close()
except DatabasePoisonedError:
    assert poisonings
with holdfast.open(path) as database:
    check(dict(database.items()))
    assert database.verify().ok
print(turn, interrupts, poisonings)
"""


def run_interrupted(path: Path, seed: int, seconds: float, threads: str) -> tuple[int, int, int]:
    turns, interrupts, poisonings = map(int, run(BODY, path, seed, seconds, threads).split())
    return turns, interrupts, poisonings


@pytest.mark.parametrize("threads", ["alone", "threads"])
def test_interrupts_at_any_moment(tmp_path: Path, threads: str) -> None:
    _, interrupts, poisonings = run_interrupted(tmp_path / "db", 1, 3.0, threads)
    assert interrupts > 50
    assert poisonings == 0


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(2, 32))
def test_interrupts_for_long(tmp_path: Path, seed: int) -> None:
    threads = "threads" if seed % 2 else "alone"
    _, interrupts, poisonings = run_interrupted(tmp_path / "db", seed, 20.0, threads)
    assert interrupts > 300
    assert poisonings == 0


def test_an_interrupted_open_and_close_leave_a_database_that_opens(tmp_path: Path) -> None:
    body = """
    import random
    chance = random.Random(5)
    def interrupt(number, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, interrupt)
    known = 0
    with holdfast.open(path, settings=TINY) as database:
        database[b"count"] = b"0"
    for turn in range(1, 120):
        database = None
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.02 + 1e-6)
            database = holdfast.open(path)
            database[b"count"] = b"%d" % turn
            known = turn
            database.close()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except DatabasePoisonedError:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if database is not None:
            try:
                database.close()
            except DatabasePoisonedError:
                pass
        database = None
        import gc
        gc.collect()
        with holdfast.open(path) as database:
            assert int(database[b"count"]) in (known, turn), (database[b"count"], known, turn)
            assert database.verify().ok
            known = int(database[b"count"])
    print(known)
    """
    assert int(run(body, tmp_path / "db")) > 10
    with holdfast.open(str(tmp_path / "db")) as database:
        assert database.verify().ok
