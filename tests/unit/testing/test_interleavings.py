"""Every interleaving of small transactions: a part of each scope is right, what is left out could
not differ, and a broken engine is noticed. `./dev interleavings` runs whole scopes.
"""

from itertools import islice, permutations

import pytest

from holdfast.testing import interleavings_run
from holdfast.testing.interleavings import (
    SCOPES,
    Arena,
    Seen,
    Tally,
    interleavings,
    is_serializable,
    judge_set,
    programs,
    sets_of_programs,
    who_may_lose,
)
from holdfast.txn._check import Check, Dependence
from holdfast.txn.keyspace import TransactionKeyspace
from tests.unit.testing.broken import change_checks, do_not_look_into_groups, do_not_validate


@pytest.fixture
def arena():
    with Arena() as made:
        yield made


def tally_of(arena, sets):
    tally = Tally()
    for chosen in sets:
        judge_set(arena, chosen, tally)
    return tally


@pytest.mark.parametrize(("scope", "count"), [("small", 90), ("deletes", 60), ("whole", 8)])
def test_a_part_of_each_scope_is_as_the_definition_has_it(arena, scope, count):
    # Of a seed that `./dev interleavings` does not begin with.
    tally = tally_of(arena, interleavings_run._sets(scope, 20)[:count])
    assert not tally.faults, tally.faults[0]
    assert tally.runs > 10 * count
    assert tally.grouped > tally.runs / 20
    assert tally.lost > tally.runs / 20


def test_a_scope_has_all_sets_up_to_exchange_of_the_keys():
    whole = SCOPES["whole"]
    assert len(programs(whole)) == 5 + 25 + 125
    small = list(sets_of_programs(SCOPES["small"]))
    assert len(small) == len(set(small)) == 2737
    keys = str.maketrans("xyXY", "yxYX")
    both = {tuple(sorted(one)) for one in small}
    both |= {tuple(sorted(program.translate(keys) for program in one)) for one in small}
    pairs, triples = 30 * 31 // 2, 30 * 31 * 32 // 6
    assert len(both) == pairs + triples


def every_order(chosen):
    """Yield every interleaving of two programs, whether it may differ or not."""
    events = [
        [(number, event) for event in range(-1, len(program) + 1)]
        for number, program in enumerate(chosen)
    ]

    def merge(first, second):
        if not first or not second:
            yield (*first, *second)
            return
        for rest in merge(first[1:], second):
            yield (first[0], *rest)
        for rest in merge(first, second[1:]):
            yield (second[0], *rest)

    yield from merge(*events)


@pytest.mark.parametrize(
    "chosen", [("xX", "xX"), ("sX", "yY"), ("Xx", "sY"), ("ss", "XY"), ("fX", "Rx"), ("XY", "ED")]
)
def test_what_is_left_out_gives_nothing_new(arena, chosen):
    known = {arena.run(chosen, events, grouped=False) for events in interleavings(chosen)}
    # Equal programs may change places.
    for other in permutations(range(len(chosen))):
        if tuple(chosen[number] for number in other) == chosen and other != (0, 1):
            known |= {
                Seen(tuple(seen.committed[at] for at in other), seen.read[::-1], seen.final)
                for seen in known
            }
    seen = {arena.run(chosen, events, grouped=False) for events in every_order(chosen)}

    def plain(one):
        """Without who wrote a value, which differs where equal programs changed places."""
        return one.committed, str(one.read).translate(SAME), str(one.final).translate(SAME)

    assert {plain(one) for one in seen} == {plain(one) for one in known}


SAME = str.maketrans("1", "0")


def test_the_definition_says_no_to_write_skew_and_to_stale_reads():
    skew = ("xY", "yX")
    events = ((0, -1), (1, -1), (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2))
    both = Seen((True, True), ((None, None), (None, None)), (b"1.1", b"0.1"))
    assert not is_serializable(skew, events, both)
    assert who_may_lose(skew, events, both) == [False, True]
    one = Seen((True, False), ((None, None), (None, None)), (None, b"0.1"))
    assert is_serializable(skew, events, one)
    late = ((0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1))
    stale = Seen((True, True), ((None,), (None,)), (b"0.0", None))
    assert not is_serializable(("X", "x"), late, stale)
    fresh = Seen((True, True), ((None,), (b"0.0",)), (b"0.0", None))
    assert is_serializable(("X", "x"), late, fresh)


def do_not_validate_ranges(monkeypatch):
    monkeypatch.setattr(TransactionKeyspace, "ranges_read", lambda _: [])


@pytest.mark.parametrize(
    ("broken", "sets"),
    [
        (do_not_validate, [("xX", "xX")]),
        (do_not_validate_ranges, [("sX", "sY")]),
        (do_not_look_into_groups, [("xX", "xX")]),
    ],
)
def test_a_broken_engine_is_noticed(arena, monkeypatch, broken, sets):
    broken(monkeypatch)
    tally = tally_of(arena, sets)
    assert any(fault.startswith("no serial order") for fault in tally.faults)


def test_an_engine_that_refuses_without_need_is_noticed(arena, monkeypatch):
    """Whoever read a key loses to whoever wrote the other one."""

    def depends_on_everything(check):
        found = [Dependence(each.source, each.keys, [(None, None)]) for each in check.dependences]
        return Check(check.since, found)

    change_checks(monkeypatch, depends_on_everything)
    tally = tally_of(arena, [("xX", "yY")])
    assert any(fault.startswith("expected to lose") for fault in tally.faults)


def test_the_verb_runs_a_scope_and_tells_what_it_did(monkeypatch, capsys):
    monkeypatch.setattr(
        interleavings_run, "sets_of_programs", lambda _: islice([("xX", "xX"), ("s", "X")], 2)
    )

    def explore(scope, seed, *_):
        interleavings_run._sets.cache_clear()
        return interleavings_run._piece(scope, seed, 0), 2

    monkeypatch.setattr(interleavings_run, "explore", explore)
    assert interleavings_run.main(["--scope", "small"]) == 0
    assert "| small | x y X Y s | 2 | 3 | 2 | 2 | 7 | 1 | 2 | 0 |" in capsys.readouterr().out
    interleavings_run._sets.cache_clear()


def test_a_run_that_was_cut_off_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    begun: list[int] = []
    left = 2

    def do_pieces(function, pieces, jobs, goes_on):
        nonlocal left
        for scope, seed, first in pieces:
            if not left:
                return
            left -= 1
            begun.append(first)
            sets = min(interleavings_run.CHUNK, 2737 - first)
            yield Tally(sets, 10 * sets, sets, 3, ["a fault"] if first == 200 else [])

    monkeypatch.setattr(interleavings_run, "do_pieces", do_pieces)
    state = str(tmp_path / "state.json")
    command = ["--scope", "small", "--seed", "5", "--resume", state]
    assert interleavings_run.main(command) == 0
    assert "| small | x y X Y s | 2 | 3 | 2,737 | 200 | 2,000 | 200 | 6 | 0 |" in (
        capsys.readouterr().out
    )
    # Nor is a fault forgotten.
    for _ in range(2):
        left = 99
        assert interleavings_run.main(command) == 1
        assert "| 2,737 | 2,737 | 27,370 | 2,737 | 84 | 1 |" in capsys.readouterr().out
    assert begun == list(range(0, 2737, interleavings_run.CHUNK))
    with pytest.raises(SystemExit):
        interleavings_run.main([*command, "--seed", "6"])
    assert "is of another run" in capsys.readouterr().err
