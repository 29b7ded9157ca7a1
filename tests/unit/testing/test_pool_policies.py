"""The policies that the pool is compared with do what their papers say, and the bound is one."""

from random import Random

import pytest

from holdfast.bufferpool import PAGE_OVERHEAD_BYTES
from holdfast.testing import pool_compare, pool_trace, result_page
from holdfast.testing.pool_compare import HOLDFAST, OurPool, next_uses, ratios, replay
from holdfast.testing.pool_policies import NEVER, Arc, Lru, Lru2
from holdfast.testing.pool_trace import ASK, DROP, PEEK, PIN

SIZE = PAGE_OVERHEAD_BYTES + 100


def asks(text, file=1):
    """Return a request for each letter, all of one size."""
    return [(ASK, file, ord(letter), SIZE) for letter in text]


def hits(make, text, pages):
    return round(replay(asks(text), pages * SIZE, make) * len(text))


def test_lru_keeps_what_was_asked_for_last():
    assert hits(Lru, "abcab", 3) == 2
    assert hits(Lru, "abcdab", 3) == 0
    assert hits(Lru, "abacab", 2) == 2


def test_lru_2_prefers_what_was_asked_for_twice():
    # x and y were asked for once, and later than a.
    assert hits(Lru2, "aaxya", 2) == 2
    assert hits(Lru, "aaxya", 2) == 1


def test_lru_2_remembers_pages_that_left():
    # The second request for a comes while it is gone; then it counts as asked for twice.
    assert hits(Lru2, "abcadea", 2) == 1


def test_arc_survives_a_scan_that_lru_does_not():
    text = "abab" + "cdefgh" + "ab"
    assert hits(Arc, text, 4) == 4
    assert hits(Lru, text, 4) == 2


def test_arc_gives_room_to_those_asked_for_once_when_they_come_back():
    text = "aabb" + "cdefcdef" * 4
    assert hits(Arc, text, 4) > 2


@pytest.mark.parametrize("make", [Lru, Lru2, Arc, OurPool])
def test_no_policy_beats_the_bound_and_each_finds_repeated_pages(make):
    rng = Random(5)
    for _ in range(20):
        events = asks("".join(rng.choice("aaabbcdefghij") for _ in range(300)))
        for capacity in (2, 4, 8):
            room = capacity * SIZE * (4 if make is OurPool else 1)
            bound = ratios(events, room)["future"]
            found = replay(events, room, make)
            assert found <= bound + 1e-9
            assert found > 0


@pytest.mark.parametrize("make", [Lru, Lru2, Arc, OurPool])
def test_capacity_is_kept_and_a_dropped_file_is_gone(make):
    rng = Random(9)
    policy = make(40 * SIZE)
    there = set()
    for step in range(4_000):
        key = (1 + step // 1_000, rng.randrange(200))
        if not policy.get(key):
            policy.put(key, SIZE + rng.randrange(SIZE))
        there.add(key)
        if step % 1_000 == 700:
            policy.resize(20 * SIZE)
        if step % 500 == 0:
            assert sum(policy.get(key) for key in sorted(there)) <= 40
    policy.drop_file(4)
    assert not any(policy.get(key) for key in there if key[0] == 4)
    policy.resize(0)
    assert not any(policy.get(key) for key in there)


def test_peeks_and_pins_are_no_requests():
    events = [(PIN, 1, 0, SIZE), *asks("ab"), (PEEK, 1, ord("a"), 0), *asks("a"), (DROP, 1, 0, 0)]
    events += asks("a")
    assert replay(events, 8 * SIZE, Lru) == 1 / 4
    # More pinned than half of the capacity: then a page is like the others.
    assert replay([(PIN, 1, 0, SIZE), (PIN, 1, 0, SIZE)], SIZE, Lru) == 1 / 2


def test_next_uses():
    events = [*asks("ab"), (PEEK, 1, ord("b"), 0), *asks("a")]
    assert next_uses(events, 8 * SIZE) == [3, NEVER, NEVER, NEVER]


@pytest.mark.slow
@pytest.mark.parametrize("name", pool_trace.TRACES)
def test_every_trace_is_recorded_from_the_engine(name):
    events = pool_compare.recorded(name, 1, 300, 60)
    kinds = {event[0] for event in events}
    assert ASK in kinds
    assert PIN in kinds
    assert all(size > PAGE_OVERHEAD_BYTES for kind, *_, size in events if kind in (ASK, PIN))
    if name == "compaction beside":
        assert {PEEK, DROP} <= kinds
    found = ratios(events, pool_compare.asked_bytes(events))
    assert found[HOLDFAST] > 0


def test_the_page_shows_all_and_marks_the_best(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    letters = Random(3).choices("abcdefghijklmnop", range(1, 17), k=400)
    monkeypatch.setattr(result_page, "uncommitted", list)
    monkeypatch.setattr(pool_compare, "recorded", lambda *_: asks("".join(letters)))
    assert pool_compare.main(["zipf", "loop", "--write"]) == 0
    page = (tmp_path / pool_compare.PAGE).read_text()
    assert "./dev pool zipf loop --write" in page
    assert page.count("| zipf |") == page.count("| loop |") == len(pool_compare.SHARES)
    assert "**" in page
    assert "- zipf: Lookups by Zipf's law. 400 requests" in page
    assert "mean of all" in capsys.readouterr().out
    assert pool_compare.main(["tides"]) == 2
