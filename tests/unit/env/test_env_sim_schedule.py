"""The deterministic scheduler: exclusion, conditions, time, deadlocks, and what a crash does to
tasks.
"""

import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from holdfast.env import Condition, Mutex, SimCrash, SimDeadlock, SimEnv, crash_states
from holdfast.env.sim_schedule import Policy


@pytest.fixture(autouse=True)
def no_thread_is_left() -> object:
    # Which ones, not how many: a thread of an earlier test may end meanwhile.
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def three_workers(env: SimEnv) -> list[str]:
    """Run three tasks that write, sync and wait for each other; return what they did in order."""
    done: list[str] = []
    mutex = env.mutex()
    condition = env.condition(mutex)

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            file = env.create(name, site=f"{name}.create")
            for step in range(5):
                file.write_at(step * 10, env.random_bytes(10), site=f"{name}.write")
                with mutex:
                    done.append(f"{name}{step}")
                    condition.notify_all()
                file.sync(site=f"{name}.sync")
                env.sleep(0.001 * (step % 2))

        return run

    tasks = [env.spawn(name, work(name)) for name in "abc"]
    with mutex:
        while len(done) < 15:
            condition.wait(timeout=1.0)
    for task in tasks:
        task.join()
    return done


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    first, second = SimEnv(seed), SimEnv(seed)
    assert three_workers(first) == three_workers(second)
    assert first.op_log == second.op_log
    assert first.op_count == 33 == len(first.op_log)
    assert first.monotonic() == second.monotonic()


def test_different_seeds_give_different_runs() -> None:
    orders = {tuple(three_workers(SimEnv(seed))) for seed in range(20)}
    assert len(orders) > 10


@pytest.mark.parametrize("seed", range(20))
def test_a_mutex_excludes(seed: int) -> None:
    env = SimEnv(seed)
    mutex = env.mutex()
    inside: list[int] = []
    total = [0]

    def work() -> None:
        for _ in range(20):
            with mutex:
                inside.append(1)
                assert len(inside) == 1
                count = total[0]
                env.sleep(0.0001)
                total[0] = count + 1
                inside.pop()

    tasks = [env.spawn(f"t{i}", work) for i in range(4)]
    for task in tasks:
        task.join()
    assert 80 == total[0]


def test_without_a_mutex_updates_are_lost_under_some_seed() -> None:
    """The schedules are rich enough to show the bug that a mutex prevents."""

    def run(seed: int) -> int:
        env = SimEnv(seed)
        total = [0]
        file = env.create("f", site="create")

        def work() -> None:
            for _ in range(5):
                count = total[0]
                file.write_at(0, b"x", site="write")
                total[0] = count + 1

        tasks = [env.spawn(f"t{i}", work) for i in range(2)]
        for task in tasks:
            task.join()
        return total[0]

    assert {run(seed) for seed in range(20)} - {10}


@pytest.mark.parametrize("seed", range(10))
def test_a_timed_acquire_gives_up_or_succeeds_in_simulated_time(seed: int) -> None:
    env = SimEnv(seed)
    mutex = env.mutex()
    results: list[bool] = []
    mutex.acquire()
    short = env.spawn("short", lambda: results.append(mutex.acquire(timeout=1.0)))
    short.join()
    assert [False] == results
    assert 1.0 <= env.monotonic() < 1.1
    long = env.spawn("long", lambda: results.append(mutex.acquire(timeout=100.0)))
    env.sleep(5.0)
    mutex.release()
    long.join()
    assert [False, True] == results
    assert env.monotonic() < 7.0


def test_time_jumps_when_every_task_sleeps() -> None:
    env = SimEnv()
    woken: list[str] = []

    def sleeper(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            env.sleep(seconds)
            woken.append(name)

        return run

    tasks = [env.spawn(n, sleeper(n, s)) for n, s in (("day", 86400), ("hour", 3600), ("now", 0))]
    for task in tasks:
        task.join()
    assert ["now", "hour", "day"] == woken
    assert 86400 <= env.monotonic() < 86401


def test_a_notified_waiter_is_told_so_and_others_go_on_waiting() -> None:
    env = SimEnv(3)
    mutex = env.mutex()
    condition = env.condition(mutex)
    results: list[bool] = []

    def wait() -> None:
        with mutex:
            results.append(condition.wait(timeout=10.0))

    tasks = [env.spawn(f"w{i}", wait) for i in range(3)]
    env.sleep(1.0)
    with mutex:
        condition.notify(2)
    env.sleep(1.0)
    assert [True, True] == results
    for task in tasks:
        task.join()
    assert [True, True, False] == results


def test_a_sync_does_not_cover_what_is_written_while_it_runs() -> None:
    lost = False
    for seed in range(20):
        env = SimEnv(seed)
        file = env.create("f", site="create")
        env.sync_dir("/", site="sync_dir")
        file.allocate(1024, written=True, site="allocate")
        file.sync(site="sync")
        file.write_at(0, b"A", site="first")
        task = env.spawn("w", partial(file.write_at, 512, b"B", site="second"))
        file.sync(site="sync")
        task.join()
        second = next(op for op in env.op_log if op.site == "second")
        sync = [op for op in env.op_log if op.kind == "sync"][-1]
        covered = second.number < int(sync.detail[0])
        contents = {s.build().open("f").read_at(0, 1024) for s in crash_states(env, ["none"])}
        assert {b"A" + bytes(511) + (b"B" if covered else b"\0") + bytes(511)} == contents
        lost = lost or (not covered and second.number < sync.number)
    assert lost, "no schedule wrote during the sync"


def test_a_deadlock_names_who_waits_for_what() -> None:
    env = SimEnv()
    first, second = env.mutex(), env.mutex()
    first.acquire()

    def work() -> None:
        with second:
            env.sleep(1.0)
            first.acquire()

    task = env.spawn("worker", work)
    env.sleep(2.0)
    with pytest.raises(SimDeadlock) as caught:
        second.acquire()
    message = str(caught.value)
    assert "main waits for a mutex held by worker" in message
    assert "worker waits for a mutex held by main" in message
    assert "test_env_sim_schedule.py" in message
    assert not env.powered
    with pytest.raises(SimCrash):
        task.join()


def test_a_deadlock_of_the_main_task_alone_is_found() -> None:
    env = SimEnv()
    mutex = env.mutex()
    condition = env.condition(mutex)
    with pytest.raises(SimDeadlock, match="main waits for a condition"), mutex:
        condition.wait()


def test_a_deadlock_names_a_task_that_runs_nothing_but_the_env() -> None:
    env = SimEnv()
    mutex = env.mutex()
    mutex.acquire()
    task = env.spawn("taker", mutex.acquire)  # type: ignore[arg-type]  # what it returns is ignored
    with pytest.raises(SimDeadlock, match=r"taker waits for a mutex held by main(\n|$)"):
        task.join()


def test_the_power_can_be_cut_when_a_sync_ends_after_what_others_did_meanwhile() -> None:
    """The sync is operation 3 when it begins and operation 4 when it takes effect."""
    cut = 0
    for seed in range(20):
        env = SimEnv(seed)
        file = env.create("f", site="create")
        env.sync_dir("/", site="sync_dir")
        file.write_at(0, b"A", site="first")
        env.spawn("w", partial(file.write_at, 0, b"B", site="second"))
        begun = env.op_count == 3
        env.crash_at(4)
        with pytest.raises(SimCrash):
            file.sync(site="sync")
            env.sleep(1.0)
            file.sync(site="again")
        if begun and [op.site for op in env.op_log][3:] == ["second"]:
            cut += 1
            contents = {s.build().open("f").read_at(0, 2) for s in crash_states(env)}
            assert {b"", b"A", b"B"} <= contents
    assert cut


def test_a_waiter_whose_time_is_up_may_still_be_notified() -> None:
    """Both at the same moment: what wait returns says whether the notification was used up."""
    results = set()
    for seed in range(40):
        env = SimEnv(seed)
        mutex = env.mutex()
        condition = env.condition(mutex)
        notified: list[bool] = []

        def wait(
            mutex: Mutex = mutex, condition: Condition = condition, notified: list[bool] = notified
        ) -> None:
            with mutex:
                notified.append(condition.wait(timeout=1.0))

        tasks = [env.spawn(name, wait) for name in ("one", "two")]
        env.sleep(1.0)
        with mutex:
            condition.notify(2)
        for task in tasks:
            task.join()
        results.add(tuple(sorted(notified)))
    assert {(False, False), (True, True)} <= results


def test_a_folder_sync_does_not_cover_a_name_made_while_it_runs() -> None:
    lost = 0
    for seed in range(20):
        env = SimEnv(seed)
        env.create("a", site="create")

        def work(env: SimEnv = env) -> None:
            env.create("b", site="create")

        task = env.spawn("w", work)
        env.sync_dir("/", site="sync_dir")
        task.join()
        names = next(crash_states(env, ["none"])).build().list_dir("/")
        assert names in (["a"], ["a", "b"])
        lost += names == ["a"] and env.op_log[-1].kind == "sync_dir"
    assert lost


def test_a_deadlock_after_the_last_other_task_ended_is_found() -> None:
    env = SimEnv()
    mutex = env.mutex()
    condition = env.condition(mutex)
    env.spawn("ends", lambda: env.sleep(1.0))
    with pytest.raises(SimDeadlock, match="main waits"), mutex:
        condition.wait()


def test_a_crash_unwinds_every_task_once_and_leaves_no_thread() -> None:
    counts = {
        "unwound": 0,
        "swallowed": 0,
    }
    env = SimEnv(5)
    mutex = env.mutex()
    condition = env.condition(mutex)

    def work() -> None:
        file = env.create(f"f{env.thread_id()}", site="create")
        try:
            while True:
                try:
                    with mutex:
                        file.write_at(0, b"x", site="write")
                        condition.wait(timeout=0.001)
                except Exception:
                    counts["swallowed"] += 1
        finally:
            counts["unwound"] += 1
            file.close()

    for i in range(4):
        env.spawn(f"t{i}", work)
    env.crash_at(40)
    with pytest.raises(SimCrash):
        while True:
            env.sleep(0.01)
    assert {"unwound": 4, "swallowed": 0} == counts
    assert 40 == env.op_count


def test_a_crash_in_the_main_task_unwinds_the_waiting_ones() -> None:
    env = SimEnv()
    ended: list[str] = []
    mutex = env.mutex()
    condition = env.condition(mutex)

    def wait() -> None:
        try:
            with mutex:
                condition.wait()
        finally:
            ended.append("waiter")

    env.spawn("waiter", wait)
    env.sleep(1.0)
    env.crash_at(0)
    with pytest.raises(SimCrash):
        env.create("f", site="create")
    assert ["waiter"] == ended


def test_cutting_the_power_raises_nothing_and_ends_the_tasks() -> None:
    env = SimEnv()

    def forever() -> None:
        while True:
            env.sleep(1.0)

    env.spawn("forever", forever)
    env.spawn("never ran", forever)
    env.cut_power()
    env.cut_power()
    assert not env.powered


def test_a_task_may_cut_the_power() -> None:
    env = SimEnv()
    env.spawn("cutter", env.cut_power)
    with pytest.raises(SimCrash):
        env.sleep(1.0)


def test_without_power_every_call_raises_but_those_that_give_back() -> None:
    env = SimEnv()
    file = env.create("f", site="create")
    lock = env.lock_file("LOCK")
    mutex = env.mutex()
    condition = env.condition(mutex)
    mutex.acquire()
    env.cut_power()
    calls: list[Callable[[], object]] = [
        lambda: file.read_at(0, 1),
        lambda: file.write_at(0, b"x", site="s"),
        lambda: file.allocate(1, written=True, site="s"),
        lambda: file.truncate(0, site="s"),
        lambda: file.sync(site="s"),
        file.size,
        lambda: env.create("g", site="s"),
        lambda: env.open("f"),
        lambda: env.rename("f", "g", site="s"),
        lambda: env.unlink("f", site="s"),
        lambda: env.make_dir("d", site="s"),
        lambda: env.list_dir("/"),
        lambda: env.sync_dir("/", site="s"),
        lambda: env.file_size("f"),
        lambda: env.lock_file("L"),
        env.monotonic,
        env.wall_time,
        lambda: env.sleep(1),
        lambda: env.random_bytes(1),
        lambda: env.spawn("t", lambda: None),
        mutex.acquire,
        condition.wait,
    ]
    for call in calls:
        with pytest.raises(SimCrash):
            call()
    condition.notify()
    condition.notify_all()
    mutex.release()
    file.close()
    lock.release()


def test_a_foreign_thread_is_refused() -> None:
    env = SimEnv()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            env.monotonic()
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert 1 == len(errors)


def test_a_condition_of_a_foreign_mutex_is_refused() -> None:
    with pytest.raises(TypeError):
        SimEnv().condition(threading.Lock())


def test_a_negative_sleep_is_refused() -> None:
    with pytest.raises(ValueError):
        SimEnv().sleep(-1)


def test_a_crash_in_a_task_that_others_join_reaches_the_main_task() -> None:
    env = SimEnv()
    file = env.create("f", site="create")

    def work() -> None:
        file.write_at(0, b"x", site="write")

    task = env.spawn("writer", work)
    env.crash_at(1, after=True)
    with pytest.raises(SimCrash):
        task.join()
        env.sleep(1.0)
    assert 2 == env.op_count


def order_of(policy: Policy, seed: int) -> list[int]:
    """Which of three tasks runs at each of forty points."""
    env = SimEnv(seed)
    env.schedule(policy)
    order: list[int] = []

    def work(number: int) -> None:
        for _ in range(40):
            order.append(number)
            with env.mutex():
                pass

    tasks = [env.spawn(f"task-{number}", partial(work, number)) for number in range(3)]
    for task in tasks:
        task.join()
    return order


def switches(order: list[int]) -> int:
    return sum(one != other for one, other in pairwise(order))


def test_policies_switch_always_now_and_then_or_by_priority() -> None:
    always, chance, priorities = (
        sum(switches(order_of(policy, seed)) for seed in range(20))
        for policy in ("always", "chance", "priorities")
    )
    assert 20 * 120 * 0.6 < always
    assert always > 1.5 * chance > 3 * priorities > 0
    assert order_of("priorities", 5) == order_of("priorities", 5)


def test_the_clocks_jump_and_nobody_runs_meanwhile() -> None:
    env = SimEnv(1)
    ran: list[float] = []
    env.spawn("sleeper", lambda: (env.sleep(5), ran.append(env.monotonic())))
    env.sleep(1e-6)
    before, wall = env.monotonic(), env.wall_time()
    env.jump(100, -1000)
    assert not ran
    assert 100 <= env.monotonic() - before < 100.1
    assert -1000 <= env.wall_time() - wall < -999.9
    env.sleep(1e-6)
    assert ran
    assert ran[0] > 100
