"""`holdfast torture`: slices of every part pass, and a broken engine is noticed."""

import argparse
import json
import shlex
from dataclasses import replace
from random import Random

import pytest

from holdfast.base import CorruptionError
from holdfast.cli import main
from holdfast.env import SimEnv
from holdfast.testing import result_page, torture, torture_damage
from holdfast.testing.torture_damage import DamagePart, WrongAnswerError, judge, machine_with
from holdfast.testing.torture_faults import FaultsPart
from holdfast.testing.torture_part import FAILURES_MAX, HangError, bound_of, bounded

SLICE = str(10 / 60)
NO_TIME = "0"
BROKEN = ["--without", "sync:wal.record.sync"]

ZERO = {
    "crash": "crashes that lost an acknowledged commit",
    "exhaustive": "crashes that lost an acknowledged commit",
    "damage": "silent wrong answers",
    "flips": "silent wrong answers",
    "fuzz": "fuzz findings",
}
SOME = {
    "crash": [
        "crash states run",
        "boundaries with a crash",
        "of these inside a recovery (depth 2)",
    ],
    "exhaustive": ["workloads run, of all disks", "crash states run", "boundaries with a crash"],
    "kills": ["kills", "databases killed"],
    "damage": ["bit flips", "other damages", "of all, on the real disk"],
    "flips": ["single bits flipped, each once", "other damages", "damages refused or found"],
    "faults": ["runs with an I/O error", "runs with a failed sync"],
    "errors": ["points tried", "errors injected"],
    "syncs": ["points tried", "runs that poisoned"],
    "clients": ["points tried", "points tried, percent"],
    "fuzz": ["fuzz executions"],
}


@pytest.mark.slow
@pytest.mark.parametrize("part", torture.PARTS)
def test_a_slice_of_each_part_passes(part, tmp_path, capsys):
    given = ["torture", str(tmp_path), "--seed", "3", "--minutes", SLICE, "--parts", part, "--json"]
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failures"] == []
    assert found["figures"]["all"]["failures"] == 0
    for name in SOME[part]:
        assert found["figures"][part][name] > 0, name
    if part in ZERO:
        assert found["figures"][part][ZERO[part]] == 0


def test_an_engine_without_a_sync_is_noticed_and_its_line_replays(tmp_path, capsys):
    given = ["torture", str(tmp_path), "--minutes", NO_TIME, "--parts", "crash", *BROKEN]
    assert main(given) == 1
    out = capsys.readouterr().out
    assert "acknowledged as durable" in out
    line = next(line for line in out.splitlines() if "replay: " in line).partition("replay: ")[2]
    program, *arguments = shlex.split(line)
    assert program == "holdfast"
    assert main(arguments) == 1
    assert "FAILED" in capsys.readouterr().out


def test_an_engine_without_a_sync_is_noticed_by_io_errors():
    part = FaultsPart(1, torture.without(("sync", "wal.record.sync")))
    for _ in range(60):
        part.step()
        if part.failures:
            break
    assert part.failures


def test_a_wrong_answer_is_noticed():
    base = torture_damage.make_base(0, 1)
    state = base.history.at(base.number)
    wrong = {**state, "default": {**state["default"], b"key/000": b"another value"}}
    machine = machine_with(base.files)
    assert ("right", state) == judge(machine, "/db", [state], Random(1), read_only=True)
    with pytest.raises(WrongAnswerError):
        judge(machine_with(base.files), "/db", [wrong], Random(1), read_only=True)


def test_a_damage_is_a_failure_when_the_engine_lies(monkeypatch, tmp_path):
    def lie(*arguments, **options):
        raise WrongAnswerError("a lie")

    monkeypatch.setattr(torture_damage, "judge", lie)
    part = DamagePart(1, str(tmp_path))
    part.step()
    assert part.figures()["silent wrong answers"] == 1
    assert part.failures[0].item == "0"


def test_items_depend_on_the_seed_alone(tmp_path):
    def counts(items, seed):
        part = DamagePart(seed, str(tmp_path))
        for item in items:
            part.replay(str(item))
        return part.counts

    assert counts(range(1, 9), 5) == counts(range(8, 0, -1), 5)
    assert counts(range(1, 9), 5) != counts(range(1, 9), 6)


def test_every_damage_changes_a_file_and_has_a_place():
    bases = [torture_damage.make_base(index, 1) for index in (14, 15)]
    for number in range(300):
        base = bases[number % 2]
        damage = torture_damage.damaged(Random(number), base)
        assert damage.files != base.files
        assert torture_damage.region_of(base, damage)


def test_the_page_that_is_written_shows_everything(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", list)
    given = ["torture", "made", "--minutes", NO_TIME, "--parts", "damage,faults", "--write"]
    assert main(given) == 0
    page = (tmp_path / torture.PAGE).read_text()
    assert page.startswith("# Measured: reliability\n")
    assert "holdfast torture --seed 1 --minutes 0 --parts damage,faults DIR --write" in page
    assert "| silent wrong answers | 0 |" in page
    assert "## Damages by kind" in page


def test_groups_run_side_by_side_and_make_one_report(tmp_path, capsys):
    given = ["torture", str(tmp_path), "--minutes", NO_TIME, "--json", "--parts"]
    assert main([*given, "crash,damage/kills"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["figures"]) == ["all", "crash", "damage", "kills"]
    both = [found["figures"]["crash"]["different contents opened and judged"]]
    both.append(found["figures"]["kills"]["kills"])
    trials = found["figures"]["all"]["trials: different contents after a crash, and kills"]
    assert trials == sum(both) > min(both) > 0
    assert "Crash states by disk" in found["tables"]


def test_a_failure_in_another_process_is_a_failure_of_the_run(tmp_path, capsys):
    given = ["torture", str(tmp_path), "--minutes", NO_TIME, "--json"]
    assert main([*given, "--parts", "crash/damage", "--without", "sync:wal.record.sync"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["all"]["failures"] == len(found["failures"]) > 0
    assert {failure["part"] for failure in found["failures"]} == {"crash"}
    assert all("--replay crash:" in failure["replay"] for failure in found["failures"])


def test_a_group_whose_process_does_not_report_ends_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torture.sys, "executable", "/bin/false")
    assert main(["torture", str(tmp_path), "--minutes", NO_TIME, "--parts", "crash/damage"]) > 0
    assert "the process of crash ended with status 1" in capsys.readouterr().err


def test_what_does_not_exist_is_wrong_usage(tmp_path):
    assert main(["torture", str(tmp_path), "--parts", "crash/"]) == 2
    assert main(["torture", str(tmp_path), "--parts", "crash/kills,crash"]) == 2
    assert main(["torture", str(tmp_path), "--parts", "earthquakes"]) == 2
    assert main(["torture", str(tmp_path), "--replay", "crash:nothing"]) == 2
    assert main(["torture", str(tmp_path), "--replay", "damage:one"]) == 2
    assert main(["torture"]) == 2


def test_the_rule_of_three():
    assert bound_of(0, 3_000) == "1.0e-03"
    assert "some" in bound_of(1, 3_000)
    assert "no trial" in bound_of(0, 0)


def test_what_hangs_ends():
    machine = SimEnv(1)
    with pytest.raises(HangError), bounded(1):
        while machine.powered:
            pass


def test_parts_that_found_enough_end():
    given = argparse.Namespace(seed=1, folder="/nowhere", without=None, first_flip=0)
    (part,) = torture.make_parts(["damage"], given, torture.same_machine)
    part.failures = [torture.Failure("damage", "0", ())] * FAILURES_MAX
    torture.take_turns([part], 60)
    assert part.figures()["databases damaged"] == 0


def test_a_part_with_nothing_left_to_do_ends():
    given = argparse.Namespace(seed=1, folder="/nowhere", without=None, first_flip=0)
    (part,) = torture.make_parts(["syncs"], given, torture.same_machine)
    tried = part._tried
    tried.update(range(len(part.points()) - 1))
    part._done = len(tried)
    torture.take_turns([part], 60)
    assert part.figures()["runs"] == 1
    assert part.figures()["points tried, percent"] == 100


@pytest.fixture(scope="module")
def with_one_record():
    """A killed database whose newest log segment has one record that no table has; the name of that
    segment, and its bytes as it was made.
    """
    for index in range(1, 100, 2):
        base = torture_damage.make_base(index, 1)
        logs = sorted(name for name in base.files if name.endswith(".wal"))
        used = [name for name in logs if torture_damage.places_of(name, base.files[name])]
        if not used or used[-1] == logs[0]:
            continue
        data = base.files[used[-1]]
        link = torture_damage.front_of(data).link
        empty = data[:link] + bytes(len(data) - link)
        is_one = len(torture_damage.places_of(used[-1], data)) == 1
        left = torture_damage.state_of(base.files | {used[-1]: empty}) if is_one else None
        if left is not None and left != base.history.at(base.number):
            return base, used[-1], empty
    raise AssertionError("no killed database is like that")


def verdict(part, base, kind, name, after):
    damage = torture_damage.Damage(kind, base.files | {name: bytes(after)}, [name])
    return part._judge(base, damage, Random(1), is_real=False)


def test_a_segment_as_it_was_made_is_as_good_as_a_crash(with_one_record, tmp_path):
    base, newest, empty = with_one_record
    part = DamagePart(1, str(tmp_path))
    assert verdict(part, base, torture_damage.STALE, newest, empty) == "cut"


def test_a_link_and_the_only_record_behind_it_may_be_lost_together(with_one_record, tmp_path):
    base, newest, _ = with_one_record
    data = bytearray(base.files[newest])
    front = torture_damage.front_of(data)
    part = DamagePart(1, str(tmp_path))
    data[front.link + 47] ^= 16
    assert verdict(part, base, "bit flip", newest, data) in ("right", "refused")
    data[front.records + 90] ^= 2
    assert verdict(part, base, "bit flip", newest, data) == "cut"
    with pytest.raises(WrongAnswerError):
        verdict(part, replace(base, is_closed=True), "bit flip", newest, data)


def test_a_link_and_a_later_record_may_be_lost_together():
    """As in a crash before the first sync of a segment with two records."""
    for index in range(1, 100, 2):
        base = torture_damage.make_base(index, 1)
        newest = max(
            name for name, data in base.files.items() if torture_damage.places_of(name, data)
        )
        places = torture_damage.places_of(newest, base.files[newest])
        if newest.endswith(".wal") and len(places) > 1:
            break
    front = torture_damage.front_of(base.files[newest])

    def left_after(*offsets):
        data = bytearray(base.files[newest])
        for offset in offsets:
            data[offset] ^= 1
        damage = torture_damage.Damage("bit flip", base.files | {newest: bytes(data)}, [newest])
        return torture_damage.without_ends(base.files, damage, is_closed=False)

    link, last = front.link + 3, places[-1] + 90
    cut = base.files[newest][: places[-1]] + bytes(len(base.files[newest]) - places[-1])
    assert left_after(link, last) == left_after(last) == base.files | {newest: cut}
    assert left_after(link) is None
    assert left_after(link, places[0] + 90) is None


def test_a_table_that_is_gone_need_not_be_found_by_verify(monkeypatch):
    """A compaction that reads no filters replaced it after a read had met its filter."""
    base = torture_damage.make_base(0, 1)
    state = base.history.at(base.number)

    def read(file):
        def everything(database, acceptable, rng):
            error = CorruptionError(file, 193, "the filter is damaged")
            return torture_damage.Reading(acceptable, [error])

        monkeypatch.setattr(torture_damage, "read_everything", everything)
        return judge(machine_with(base.files), "/db", [state], Random(1), read_only=True)

    assert read("/db/99999999.table") == ("right", state)
    there = next(name for name in base.files if name.endswith(".table"))
    with pytest.raises(WrongAnswerError, match="verify does not find"):
        read(f"/db/{there}")


def test_a_part_that_fails_itself_does_not_end_the_run(monkeypatch):
    def fail(part):
        raise ValueError("the harness is wrong")

    monkeypatch.setattr(DamagePart, "step", fail)
    given = argparse.Namespace(seed=1, folder="/nowhere", without=None, first_flip=0)
    (part,) = torture.make_parts(["damage"], given, torture.same_machine)
    torture.take_turns([part], 60)
    assert len(part.failures) == FAILURES_MAX
    assert "the harness is wrong" in part.failures[0].complaints[0]


def test_a_killed_database_may_hold_two_equal_states():
    """A step that changes nothing makes two equal states; the last of those allowed is taken."""
    names = torture_damage._NAMES
    for turn in range(40):
        item = 2 * (turn * len(names) + names.index("mixed")) + 1
        base = torture_damage.make_base(item, 1)
        numbers = list(base.history.numbers(base.history.at(base.number)))
        if len(numbers) > 1:
            break
    assert len(numbers) > 1
    assert base.number in numbers
