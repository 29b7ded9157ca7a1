"""The part `flips` of `holdfast torture`: what it flips, and that it notices a reader that lies."""

from bisect import bisect_right
from itertools import pairwise
from random import Random

import pytest

from holdfast.testing import encrypted, torture_flips, torture_flips_judge
from holdfast.testing.torture_damage import Damage, WrongAnswerError, matrix
from holdfast.testing.torture_flips import Drawing, FlipsPart
from holdfast.testing.torture_flips_base import make_world

PLACES = {
    "log, END record", "log, batch", "log, header", "log, link", "log, record header",
    "log, unused", "manifest, edit", "manifest, edit header", "manifest, header",
    "manifest, snapshot", "manifest, snapshot header", "marker, name", "table, data (lz4)",
    "table, data (none)", "table, data (zstd)", "table, filter", "table, footer", "table, index",
    "table, index_root", "table, properties", "table, range_tombstones",
}  # fmt: skip


@pytest.fixture(scope="module")
def killed():
    return make_world(1, is_closed=False)


@pytest.fixture
def with_a_key():
    encrypted.use(True)
    yield
    encrypted.use(False)


def test_the_databases_have_every_page_type_and_codec_and_several_partitions(killed):
    assert {unit.kind for unit in killed.units} == PLACES
    assert any(
        sum(unit.kind == "table, filter" for unit in killed.units if unit.name == name) > 1
        for name in killed.tables
    )
    for name, data in killed.files.items():
        covered = sorted((u.start, u.start + u.size) for u in killed.units if u.name == name)
        assert all(a[1] <= b[0] for a, b in pairwise(covered))
        if name.endswith((".table", ".manifest")):
            assert sum(end - start for start, end in covered) == len(data)


@pytest.mark.parametrize("alignment", [512, 4096])
@pytest.mark.parametrize("is_closed", [True, False])
def test_databases_with_aligned_records_are_judged_alike(is_closed, alignment):
    """No damage of theirs gives a wrong answer, also none of padding and of the sectors of a link,
    and padding is told from what it pads.
    """
    world = make_world(1, is_closed=is_closed, alignment=alignment)
    assert {unit.kind for unit in world.units} >= {"log, padding", "manifest, padding"} | (
        set() if is_closed else {"log, batch", "log, record header"}
    )
    for name, data in world.files.items():
        covered = sorted((u.start, u.start + u.size) for u in world.units if u.name == name)
        assert all(a[1] <= b[0] for a, b in pairwise(covered))
        if name.endswith(".manifest"):
            assert sum(end - start for start, end in covered) == len(data)
            assert len(data) % alignment == 0
    judge, drawing, rng = torture_flips_judge.Judge(world), Drawing(world), Random(alignment)
    verdicts = {judge.judge(drawing.draw(rng)[1]) for _ in range(150)}
    assert {"refused", "found", "right"} <= verdicts


def test_sealed_databases_have_the_same_places_and_those_of_seals(with_a_key):
    world = make_world(1, is_closed=False)
    assert {unit.kind for unit in world.units} == PLACES | {"table, tail", "key file"}
    for name, data in world.files.items():
        covered = sorted((u.start, u.start + u.size) for u in world.units if u.name == name)
        assert all(a[1] <= b[0] for a, b in pairwise(covered))
        if name.endswith((".table", ".manifest")) or name.startswith("KEYS."):
            assert sum(end - start for start, end in covered) == len(data)


@pytest.mark.parametrize("alignment", [8, 512, 4096])
@pytest.mark.parametrize("is_closed", [True, False])
def test_no_damage_of_a_sealed_database_gives_a_wrong_answer(with_a_key, is_closed, alignment):
    world = make_world(1, is_closed=is_closed, alignment=alignment)
    judge, drawing, rng = torture_flips_judge.Judge(world), Drawing(world), Random(alignment)
    places = {}
    for number in range(400):
        unit, damage = drawing.draw(rng) if number % 2 else drawing.flip(number)
        verdict = judge.judge(damage)
        # A sector that was misdirected may be short and end before the unit.
        before, after = (
            f[unit.name][unit.start :][: unit.size] for f in (world.files, damage.files)
        )
        if damage.kind != "misdirected" or before != after:
            places.setdefault(unit.kind, set()).add(verdict)
    assert {"refused", "found", "right"} <= set().union(*places.values())
    for kind in ("table, tail", "table, footer", "table, index_root"):
        assert places.get(kind, {"refused"}) == {"refused"}
    assert "right" not in places["table, data (lz4)"]


def test_a_segment_whose_header_and_name_are_lost_looks_unused_when_it_is_sealed(with_a_key):
    """docs/format/sealed.md says so; of either damage alone the other one tells."""
    world = make_world(1, is_closed=False)
    judge = torture_flips_judge.Judge(world)
    (end,) = (unit for unit in world.units if unit.kind == "log, END record")
    newest = max(name for name in world.files if name.endswith(".wal"))
    before = world.files[end.name]
    lost = before[: end.start] + bytes(end.size) + before[end.start + end.size :]
    headless = bytes(64) + world.files[newest][64:]
    for changed, verdict in (
        ({end.name: lost}, "refused"),
        ({newest: headless}, "refused"),
        ({end.name: lost, newest: headless}, "cut"),
    ):
        damage = Damage("both", world.files | changed, list(changed))
        assert judge.judge(damage) == verdict
        torture_flips.compare(world, damage, verdict, Random(1))


def test_a_sealed_table_that_lies_is_noticed(with_a_key, monkeypatch):
    Careless.true = torture_flips_judge.TableReader
    monkeypatch.setattr(torture_flips_judge, "TableReader", Careless)
    part = FlipsPart(1)
    while not part.failures:
        part.step()
    assert "has a wrong value" in part.failures[0].complaints[1]


def test_items_of_sealed_databases_depend_on_the_seed_alone(with_a_key):
    one, other = FlipsPart(5), FlipsPart(5)
    for item in range(40):
        one.replay(str(item))
        other.replay(str(39 - item))
    assert one.counts == other.counts
    assert not one.failures


def test_each_bit_has_one_number(killed):
    drawing = Drawing(killed)
    assert {number * drawing._stride % drawing.bits for number in range(drawing.bits)} == set(
        range(drawing.bits)
    )
    seen = set()
    for number in range(2000):
        unit, damage = drawing.flip(number)
        (name,) = damage.changed
        before, after = killed.files.get(name, b""), damage.files.get(name, b"")
        if unit.kind == "marker, name":
            (new,) = set(damage.files) - set(killed.files)
            before, after = name.encode(), new.encode("latin-1")
        difference = [
            (at, a ^ b) for at, (a, b) in enumerate(zip(before, after, strict=True)) if a != b
        ]
        assert len(difference) == 1
        assert difference[0][1].bit_count() == 1
        seen.add((name, *difference[0]))
    assert len(seen) == 2000


def test_a_flip_that_makes_a_slash_of_a_dot_makes_the_name_go(killed):
    drawing = Drawing(killed)
    for number in range(drawing.bits):
        at = number * drawing._stride % drawing.bits
        unit = drawing._counted[bisect_right(drawing._ends, at)]
        if unit.kind == "marker, name":
            damage = drawing.flip(number)[1]
            assert not any("/" in name for name in damage.files)
            if len(damage.files) < len(killed.files):
                return
    raise AssertionError("no flip makes a slash")


def test_items_depend_on_the_seed_alone():
    one, other = FlipsPart(5), FlipsPart(5)
    for item in range(40):
        one.replay(str(item))
        other.replay(str(39 - item))
    assert one.counts == other.counts
    assert not one.failures


def test_a_run_that_begins_later_does_other_items():
    part = FlipsPart(1, 1000)
    part.step()
    assert not part.failures
    figures = part.figures()
    assert figures["items"] == "1000 to 1049"
    assert figures["single bits flipped, each once"] == 25
    assert figures["other damages"] == 25


class Careless:
    """A reader whose look-ups are one entry off."""

    def __init__(self, *arguments):
        self._reader = Careless.true(*arguments)

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def get(self, key, seq):
        found = self._reader.get(key, seq)
        return found and (found[0], found[1], found[2] + b"!")


def test_a_table_that_lies_is_noticed(monkeypatch):
    Careless.true = torture_flips_judge.TableReader
    monkeypatch.setattr(torture_flips_judge, "TableReader", Careless)
    part = FlipsPart(1)
    while not part.failures:
        part.step()
    assert "has a wrong value" in part.failures[0].complaints[1]
    assert part.figures()["silent wrong answers"]
    assert any("WRONG" in cell for row in part.tables().popitem()[1] for cell in row)


def test_a_log_that_is_cut_too_early_is_noticed(monkeypatch):
    true = torture_flips_judge.Judge._outcome

    def shorter(judge, files, manifest):
        found = true(judge, files, manifest)
        return (found[0], found[1][:-3], *found[2:]) if files is not judge._world.files else found

    monkeypatch.setattr(torture_flips_judge.Judge, "_outcome", shorter)
    monkeypatch.setattr(
        torture_flips_judge, "state_of", lambda files: {"default": {b"none": b"of these"}}
    )
    part = FlipsPart(1)
    while not part.failures:
        part.step()
    assert "durable is gone" in part.failures[0].complaints[1]


def test_levels_that_disagree_are_noticed(killed):
    _, damage = Drawing(killed).flip(0)
    judge = torture_flips_judge.Judge(killed)
    verdict = judge.judge(damage)
    assert verdict in ("refused", "found")
    torture_flips.compare(killed, damage, verdict, torture_flips.Random(1))
    with pytest.raises(WrongAnswerError, match="a check says False"):
        torture_flips.compare(killed, damage, "right", torture_flips.Random(1))


def test_a_matrix_has_a_letter_for_each_verdict():
    counts = torture_flips.Counter({("a", "bit flip", "found"): 3, ("a", "zeroed", "refused"): 1})
    counts["a", "bit flip", "refused"] = 2
    assert matrix(counts) == [["place", "bit flip", "zeroed"], ["a", "r2 f3", "r1"]]
