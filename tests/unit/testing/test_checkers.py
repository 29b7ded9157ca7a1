"""The two checkers of histories: each anomaly by its smallest history, what each level forbids, the
definition on all small histories, broken models, and right ones without a false alarm.

The same is done at length by `./dev histories`.
"""

import threading
from random import Random

import pytest

from holdfast.testing import histories
from holdfast.testing.anomaly import (
    FORBIDDEN_BY,
    IMPLIED,
    LEVELS,
    READ_COMMITTED,
    SERIALIZABLE,
    SNAPSHOT,
    STRICT,
    STRONG_SNAPSHOT,
)
from holdfast.testing.broken_engines import FAULTS, PROMISED, Model, broken_history, fault_kinds
from holdfast.testing.check_append import check_append
from holdfast.testing.check_rmw import check_rmw
from holdfast.testing.check_small import levels_kept
from holdfast.testing.history import Append, HistoryError, Put, Read, Scan, Transaction
from holdfast.testing.history_run import Load, run_steps, run_threads

ALL = frozenset(LEVELS)
ONLY_STRICT = frozenset((STRICT,))
SERIAL = IMPLIED[SERIALIZABLE]
FROM_SNAPSHOT = IMPLIED[SNAPSHOT]
REAL_TIME = IMPLIED[STRONG_SNAPSHOT]


def r(key, *elements):
    return Read(key, elements)


def a(key, element):
    return Append(key, element)


def g(key, value):
    return Read(key, value)


def w(key, old, new):
    return (Read(key, old), Put(key, new))


def at(number, began, ended, *operations, outcome="ok", process=None):
    """A transaction; what it does may be given in pairs."""
    flat = [one for part in operations for one in ([part] if hasattr(part, "_fields") else part)]
    process = number if process is None else process
    return Transaction(number, process, outcome, began, ended, "serializable", tuple(flat))


def ts(*rows):
    """Transactions, all at once; a row has its operations, behind an outcome if it is not ok."""
    return [
        at(number, 0, 99, *row[1:], outcome=row[0])
        if isinstance(row[0], str)
        else at(number, 0, 99, *row)
        for number, row in enumerate(rows, 1)
    ]


def in_turn(transactions, process=None):
    return [
        one._replace(
            began=10 * number,
            ended=10 * number + 5,
            process=number if process is None else process,
        )
        for number, one in enumerate(transactions, 1)
    ]


APPEND = {
    "own write not seen": (ts([a("x", 1), r("x")]), ALL),
    "duplicated element": (ts([a("x", 1)], [r("x", 1, 1)]), ALL),
    "unwritten value": (ts([r("x", 7)]), ALL),
    "wrong scan": (ts([a("x", 1)], [Scan("a", "c", (("x", (1,)),))]), ALL),
    "incompatible order": (ts([a("x", 1)], [a("x", 2)], [r("x", 1, 2)], [r("x", 2, 1)]), ALL),
    "G1a": (ts(["fail", a("x", 1)], [r("x", 1)]), ALL),
    "G1b": (ts([a("x", 1), a("x", 2)], [r("x", 1)], [r("x", 1, 2)]), ALL),
    "G0": (ts([a("x", 1), a("y", 1)], [a("x", 2), a("y", 2)], [r("x", 1, 2)], [r("y", 2, 1)]), ALL),
    "G1c": (ts([a("x", 1), r("y", 2)], [a("y", 2), r("x", 1)]), ALL),
    "non-repeatable read": (ts([a("x", 1)], [r("x"), r("x", 1)]), FROM_SNAPSHOT),
    "lost update": (ts([r("x"), a("x", 1)], [r("x"), a("x", 2)], [r("x", 1, 2)]), FROM_SNAPSHOT),
    "fractured read": (ts([a("x", 1), a("y", 1)], [r("x", 1), r("y")], [r("y", 1)]), FROM_SNAPSHOT),
    "G-single": (
        ts([a("x", 1)], [r("x", 1), a("y", 2)], [r("y", 2), r("x")]),
        FROM_SNAPSHOT,
    ),
    "long fork": (
        ts([a("x", 1)], [a("y", 2)], [r("x", 1), r("y")], [r("x"), r("y", 2)]),
        FROM_SNAPSHOT,
    ),
    "G-nonadjacent": (
        ts(
            [a("x", 1)],
            [r("x", 1), a("z", 3)],
            [r("z", 3), r("y")],
            [a("y", 2)],
            [r("y", 2), r("x")],
        ),
        FROM_SNAPSHOT,
    ),
    "write skew": (ts([r("x"), a("y", 1)], [r("y"), a("x", 2)], [r("x", 2), r("y", 1)]), SERIAL),
    "phantom": (
        ts(
            [Scan("a", "c", ()), a("b", 1)], [Scan("a", "c", ()), a("a", 2)], [r("a", 2), r("b", 1)]
        ),
        SERIAL,
    ),
    "G2": (
        ts(
            [r("x"), a("y", 1)],
            [r("y"), a("z", 2)],
            [r("z"), a("x", 3)],
            [r("x", 3), r("y", 1), r("z", 2)],
        ),
        SERIAL,
    ),
    "G-single-realtime": (in_turn(ts([a("x", 1)], [r("x")], [r("x", 1)])), REAL_TIME),
    "G-single-process": (in_turn(ts([a("x", 1)], [r("x")], [r("x", 1)]), 1), REAL_TIME),
    "G0-realtime": (in_turn(ts([a("x", 1)], [a("x", 2)], [r("x", 2, 1)])), REAL_TIME),
    "G1c-realtime": (in_turn(ts([r("x", 1)], [a("x", 1)])), REAL_TIME),
    "G-nonadjacent-realtime": (
        [
            at(1, 0, 20, r("x", 4), r("y")),
            at(2, 0, 5, a("y", 2)),
            at(3, 10, 15, r("x")),
            at(4, 0, 20, a("x", 4)),
            at(5, 0, 90, r("y", 2)),
        ],
        REAL_TIME,
    ),
    "G2-realtime": (
        [
            at(1, 10, 20, r("x")),
            at(2, 0, 30, r("y"), a("x", 2)),
            at(3, 0, 5, a("y", 3)),
            at(4, 0, 90, r("x", 2), r("y", 3)),
        ],
        ONLY_STRICT,
    ),
}
"""Of kinds the smallest history, and the levels it breaks."""

RMW = {
    "own write not seen": (ts([*w("x", 0, 1), g("x", 0)]), ALL),
    "unwritten value": (ts([g("x", 7)]), ALL),
    "wrong scan": (ts([w("x", 0, 1)], [Scan("a", "c", (("x", 1),))]), ALL),
    "G1a": (ts(["fail", w("x", 0, 1)], [g("x", 1)]), ALL),
    "G1b": (ts([*w("x", 0, 1), Put("x", 2)], [g("x", 1)]), ALL),
    "no read committed order": (
        ts([w("x", 0, 1), g("y", 2)], [g("x", 1), w("y", 0, 2)]),
        ALL,
    ),
    "non-repeatable read": (ts([w("x", 0, 1)], [g("x", 0), g("x", 1)]), FROM_SNAPSHOT),
    "lost update": (ts([w("x", 0, 1)], [w("x", 0, 2)]), FROM_SNAPSHOT),
    "no snapshot order": (
        ts([w("x", 0, 1), w("y", 0, 2)], [g("x", 1), g("y", 0)]),
        FROM_SNAPSHOT,
    ),
    "no serial order": (ts([g("y", 0), w("x", 0, 1)], [g("x", 0), w("y", 0, 2)]), SERIAL),
    "no strong snapshot order": (in_turn(ts([w("x", 0, 1)], [g("x", 0)])), REAL_TIME),
    "no strict serial order": (
        [
            at(1, 10, 20, g("x", 0)),
            at(2, 0, 30, g("y", 0), w("x", 0, 2)),
            at(3, 0, 5, w("y", 0, 3)),
        ],
        ONLY_STRICT,
    ),
}


@pytest.mark.parametrize("kind", APPEND)
def test_the_first_checker_names_the_anomaly_and_the_levels_it_breaks(kind):
    transactions, levels = APPEND[kind]
    report = check_append(transactions)
    assert kind in report.kinds(), report
    assert report.violated() == levels, report
    assert levels >= IMPLIED[FORBIDDEN_BY[kind]]


@pytest.mark.parametrize("kind", RMW)
def test_the_second_checker_names_the_anomaly_and_the_levels_it_breaks(kind):
    transactions, levels = RMW[kind]
    report = check_rmw(transactions)
    assert kind in report.kinds(), report
    assert report.violated() == levels, report


def levels_broken(transactions):
    return ALL - {READ_COMMITTED} - levels_kept(transactions)


def test_what_snapshot_forbids_is_found_behind_shorter_cycles_that_it_allows():
    # Each rw of the long fork is in a write skew too: the shortest cycle of each is allowed.
    transactions = ts(
        [r("x", 3), r("y"), a("p", 1)],
        [r("p"), a("y", 2)],
        [r("q"), a("x", 3)],
        [r("y", 2), r("x"), a("q", 4)],
        [r("p", 1), r("q", 4), r("x", 3), r("y", 2)],
    )
    report = check_append(transactions)
    assert {"long fork", "write skew"} <= report.kinds()
    assert report.violated() == FROM_SNAPSHOT == levels_broken(transactions)


def test_what_strong_snapshot_forbids_is_found_behind_a_shorter_cycle_that_it_allows():
    # The way back over z has two rw in a row; only the longer one over T4 breaks a snapshot.
    transactions = [
        at(1, 0, 20, r("x", 4), r("y"), a("z", 1)),
        at(2, 0, 5, a("y", 2)),
        at(3, 10, 15, r("x"), r("z")),
        at(4, 0, 20, a("x", 4)),
        at(5, 0, 90, r("x", 4), r("y", 2), r("z", 1)),
    ]
    report = check_append(transactions)
    assert {"G-nonadjacent-realtime", "G2-realtime"} <= report.kinds()
    assert report.violated() == levels_broken(transactions) == REAL_TIME


def test_the_read_only_anomaly_is_allowed_to_snapshots_and_forbidden_to_serializable():
    # Fekete, O'Neil and O'Neil: two writers are serializable until somebody reads in between.
    transactions = ts(
        [g("x", 0), g("y", 0), w("x", 0, 1)],
        [g("y", 0), Put("y", 2)],
        [g("x", 0), g("y", 2)],
    )
    assert check_rmw(transactions[:2]).violated() == frozenset()
    assert check_rmw(transactions).violated() == SERIAL == levels_broken(transactions)


def test_an_unknown_outcome_may_be_either_until_somebody_saw_it():
    unseen = ts(["unknown", a("x", 1)], [r("x")], [r("x")])
    assert not check_append(in_turn(unseen)).counts
    seen = in_turn(ts(["unknown", a("x", 1)], [r("x", 1)], [r("x")]))
    assert check_append(seen).violated() == REAL_TIME
    late = in_turn(ts(["unknown", w("x", 0, 1)], [g("x", 0)], [g("x", 1)]))
    assert not check_rmw(late).counts
    lost = in_turn(ts(["unknown", w("x", 0, 1)], [g("x", 1)], [g("x", 0)]))
    assert check_rmw(lost).violated() == REAL_TIME


def test_what_an_unknown_transaction_saw_makes_another_one_certain():
    chain = ts(["unknown", a("x", 1)], ["unknown", r("x", 1), a("y", 2)], [r("y", 2), r("x")])
    assert check_append(chain).violated() == FROM_SNAPSHOT
    chain = ts(
        ["unknown", w("x", 0, 1)], ["unknown", g("x", 1), w("y", 0, 2)], [g("y", 2), g("x", 0)]
    )
    assert check_rmw(chain).violated() == FROM_SNAPSHOT


def test_a_scan_reads_the_keys_that_it_did_not_return():
    gap = ts([a("m", 1), a("n", 1)], [Scan("m", "z", (("n", (1,)),))], [r("m", 1)])
    assert "fractured read" in check_append(gap).kinds()
    whole = ts([a("m", 1), a("n", 1)], [Scan("n", "z", (("n", (1,)),))], [r("m", 1)])
    assert not check_append(whole).counts
    gap = ts([w("m", 0, 1), w("n", 0, 2)], [Scan("m", "z", (("n", 2),))])
    assert "no snapshot order" in check_rmw(gap).kinds()


def test_an_element_that_vanished_is_an_update_that_was_lost():
    blind = in_turn(ts([a("x", 1)], [a("x", 2)], [r("x", 2)]))
    assert check_append(blind).violated() >= REAL_TIME


@pytest.mark.parametrize(
    "transactions",
    [
        ts([Put("x", 1)]),
        ts([a("x", 1), a("x", 1)]),
        ts([a("x", 1)], [a("x", 1)]),
        ts([g("x", 1)]),
    ],
)
def test_what_is_no_append_history_is_refused(transactions):
    with pytest.raises(HistoryError):
        check_append(transactions)


@pytest.mark.parametrize(
    "transactions",
    [
        ts([Put("x", 1)]),
        ts([a("x", 1)]),
        ts([w("x", 0, 1)], [w("x", 1, 1)]),
        ts([w("x", 0, 0)]),
        ts([r("x")]),
        [*ts([g("x", 0)]), *ts([g("x", 0)])],
    ],
)
def test_what_is_no_rmw_history_is_refused(transactions):
    with pytest.raises(HistoryError):
        check_rmw(transactions)


def test_a_report_shows_a_cycle_with_its_reasons():
    text = str(check_append(APPEND["G-single"][0]))
    assert "G-single (forbidden from snapshot on)" in text
    assert "T3 read x = [], behind which T1 appended" in text
    assert "T3 read y = [2], the last of it by T2" in text
    assert "found: 1 x G-single" in text
    text = str(check_rmw(RMW["no serial order"][0]))
    assert "T1 read y = 0, not yet 2 of T2" in text
    assert "2 transactions have no place" in text


def test_a_report_keeps_some_of_each_kind_and_counts_all():
    rows = [[r("x", number)] for number in range(1, 21)]
    report = check_append(ts(*rows), most=3)
    assert report.counts["unwritten value"] == 20
    assert sum(one.kind == "unwritten value" for one in report.anomalies) == 3


@pytest.mark.parametrize("kind", histories.KINDS)
@pytest.mark.parametrize(
    ("transactions", "operations", "share"), [(2, 2, 1.0), (2, 3, 0.2), (3, 2, 0.1), (3, 3, 0.006)]
)
def test_the_checkers_agree_with_the_definition_on_small_histories(
    kind, transactions, operations, share, seed
):
    tally = histories.small(seed, kind, transactions, operations, share)
    assert tally.histories > 20
    assert not tally.wrong, f"{tally.wrong[0]}"


@pytest.mark.parametrize("kind", histories.KINDS)
def test_small_histories_keep_and_break_every_level(kind):
    found = set()
    rng = Random(1)
    for history in histories.small_histories(kind, 2, 2, rng):
        for one in (history, histories.with_times(history, rng)):
            found.add(levels_kept(one))
    assert frozenset() in found
    assert frozenset((SNAPSHOT, STRONG_SNAPSHOT)) in found  # write skew
    assert frozenset((SNAPSHOT, SERIALIZABLE)) in found  # a stale read
    assert ALL - {READ_COMMITTED} in found


BROKEN = [
    (name, kind) for name in FAULTS for kind in histories.KINDS if fault_kinds(FAULTS[name], kind)
]


@pytest.mark.parametrize(("name", "kind"), BROKEN)
def test_a_broken_model_is_found_and_what_it_keeps_is_not_blamed(name, kind, seed):
    fault = FAULTS[name]
    expected = fault_kinds(fault, kind)
    for run in range(3):
        history, bites = broken_history(name, kind, seed + run)
        assert bites >= fault.bites
        report = histories.judge(history)
        assert report.kinds() & expected, report
        assert PROMISED[fault.isolation] in report.violated()
        assert not report.violated() & fault.keeps, report


@pytest.mark.parametrize("kind", histories.KINDS)
def test_serial_histories_raise_no_alarm(kind, seed):
    tally = histories.serial(seed, kind, 500)
    assert tally.histories == 500
    assert not tally.wrong, f"{tally.wrong[0]}"


@pytest.mark.parametrize("isolation", histories.ISOLATIONS)
@pytest.mark.parametrize("kind", histories.KINDS)
def test_histories_of_a_right_model_raise_no_alarm(kind, isolation, seed):
    tally = histories.right(seed, kind, isolation, 12, 150)
    assert not tally.wrong, f"{tally.wrong[0]}"


@pytest.mark.parametrize("kind", histories.KINDS)
def test_a_right_model_never_does_what_a_fault_does(kind, rng):
    store = Model(kind, rng)
    run_steps(store, Load(kind=kind), rng, clients=6, count=200, crashes=0.01)
    assert store.bites == 0
    assert store.last > 20


class Locked:
    """A model, or a client of one, of which one thread at a time calls something."""

    def __init__(self, inner, lock):
        self.inner, self.lock = inner, lock

    def __getattr__(self, name):
        def call(*arguments, **named):
            with self.lock:
                found = getattr(self.inner, name)(*arguments, **named)
            return Locked(found, self.lock) if name == "client" else found

        return call


@pytest.mark.parametrize("kind", histories.KINDS)
@pytest.mark.parametrize("isolation", histories.ISOLATIONS)
def test_threads_give_a_history_too(kind, isolation, seed):
    store = Locked(Model(kind, Random(seed)), threading.Lock())
    load = Load(kind=kind, isolation=isolation)
    history = run_threads(store, load, seed, threads=4, count=30)
    assert len(history.transactions) == 4 * 30 + 2
    assert len({one.process for one in history.transactions}) == 5
    assert PROMISED[isolation] not in histories.judge(history).violated()


def test_what_a_thread_raises_is_raised_by_the_run(seed):
    class Odd(Model):
        def read(self, attempt, key):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_threads(Odd("rmw", Random(seed)), Load(kind="rmw"), seed, threads=1, count=2)


def test_the_time_to_judge_grows_with_the_history_not_faster():
    """Ten times the transactions make about ten times the edges and demands."""
    from holdfast.testing.check_append import _Judge

    sizes = []
    for count in (300, 3000):
        rng = Random(count)
        history = run_steps(Model("append", rng), Load(kind="append"), rng, clients=4, count=count)
        judge = _Judge(history.transactions, 8)
        judge.settle()
        for index in range(len(history.transactions)):
            if judge.is_committed[index]:
                judge.read(index)
        for key in judge.reads:
            judge.order_key(key)
        sizes.append(sum(1 for key in judge.reads for _ in judge._edges_of_key(key)))
    assert sizes[1] < 13 * sizes[0]
