"""A power cut at any call of a repair or a backup leaves what it has to; without any one of its
syncs, or with it in the wrong place, some cut does not.
"""

import functools
from functools import partial

import pytest

from holdfast.env import FaultRule
from holdfast.env.fault import take_effect
from holdfast.testing.mutants import OTHER_MUTANTS, without
from tests.crash.copies import KEY, TARGET, Backup, Repair, damaged
from tests.crash.cuts import Case, failures

KEYS = {"plain": None, "encrypted": KEY}
PLACES = {"in place": None, "elsewhere": TARGET}

REPAIRS = [
    "table, in place, plain",
    "table, in place, encrypted",
    "table, elsewhere, plain",
    "table, elsewhere, encrypted",
    "wal, in place, plain",
    "wal, elsewhere, plain",
    "manifest, in place, plain",
    "manifest, elsewhere, plain",
]
BACKUPS = [
    "backup, new folder, plain",
    "backup, empty folder, plain",
    "backup, empty folder, encrypted",
]
REMOVALS = ["removal, empty folder, plain", "removal, empty folder, encrypted"]


@functools.cache
def repair(kind, place, key):
    return Repair(damaged(kind, KEYS[key]), PLACES[place], KEYS[key])


@functools.cache
def case(name):
    """Cases are kept, so that a mutant is judged only where it differs."""
    kind, place, key = name.split(", ")
    if kind == "unsynced":
        return unsynced_case(place, key)
    if kind == "removal":
        return removal_case(key)
    if kind in ("table", "wal", "manifest"):
        judge = repair(kind, place, key)
    else:
        judge = Backup(KEYS[key], has_folder=place == "empty folder")
    return Case(judge.prepare, judge)


def unsynced_case(place, key):
    """Without a manifest tables are found which nobody may ever have synced."""
    first = repair("manifest", place, key)
    kept = min(name for name in first.files.keys() - first.aside if name.endswith(".table"))
    judge = Repair(damaged("manifest", KEYS[key]), PLACES[place], KEYS[key], unsynced=kept)
    return Case(judge.prepare, judge, since="repair.aside.end")


def removal_case(key):
    """The sync of the marker fails, when the marker is there already."""
    fault = FaultRule(site="manifest.marker.folder_sync", effect=take_effect)
    judge = Backup(KEYS[key], has_folder=True, fault=fault)
    return Case(judge.prepare, judge, since="manifest.marker.create")


UNSYNCED = "unsynced, in place, plain"


@pytest.mark.parametrize("name", REPAIRS)
def test_a_cut_at_any_call_of_a_repair_leaves_the_old_or_the_repaired_database(name):
    """Another repair goes through, with the same answers, and no original is gone."""
    assert list(failures(case(name))) == []
    assert len(case(name).verdicts) > 20


def test_a_table_that_nobody_synced_is_durable_when_a_repair_relies_on_it():
    """Its writer was killed before that, and the manifest that does not name it is damaged."""
    assert list(failures(case(UNSYNCED))) == []


@pytest.mark.parametrize("name", BACKUPS)
def test_a_cut_at_any_call_of_a_backup_leaves_the_whole_copy_or_none(name):
    """Another backup goes through."""
    assert list(failures(case(name))) == []
    assert case(name).judge.verdicts == {"empty", "begun", "whole"}


@pytest.mark.parametrize("name", REMOVALS)
def test_a_cut_at_any_call_of_a_removal_leaves_the_whole_copy_or_none(name):
    assert list(failures(case(name))) == []
    assert case(name).judge.verdicts == {"empty", "begun", "whole"}


@pytest.mark.parametrize(
    ("place", "until"),
    [("in place", "repair.aside.begin_sync"), ("elsewhere", "repair.target.begin_sync")],
)
def test_a_cut_while_what_an_earlier_one_left_is_removed(place, until):
    judge = repair("table", place, "plain")
    begun = partial(judge.prepare_begun, "repair.copy.sync")
    assert list(failures(Case(begun, judge, until=until))) == []


@pytest.mark.parametrize(
    ("place", "site", "since"),
    [
        ("in place", "repair.aside.parent.folder_sync", "repair.aside.end"),
        ("in place", "repair.aside.begin_sync", "repair.copy.create"),
        ("elsewhere", "repair.parent.folder_sync", "manifest.marker.create"),
        ("elsewhere", "repair.target.begin_sync", "repair.copy.create"),
    ],
)
def test_what_a_repair_made_that_was_killed_is_synced_by_the_next(place, site, since):
    """Nothing made it durable: the machine went on."""
    judge = repair("table", place, "plain")
    failed = partial(judge.prepare_failed, site)
    assert list(failures(Case(failed, judge, since=since))) == []


# --- without a sync, and with it in the wrong place

KILLERS = {
    ("sync", "backup.keys.sync"): "backup, empty folder, encrypted",
    ("sync", "backup.sync"): "backup, new folder, plain",
    ("sync", "repair.copy.sync"): "table, in place, plain",
    ("sync", "repair.kept.sync"): UNSYNCED,
    ("sync", "repair.keys.sync"): "table, elsewhere, encrypted",
    ("sync", "repair.write.sync"): "table, in place, plain",
    ("sync_dir", "backup.attempt.folder_sync"): "removal, empty folder, plain",
    ("sync_dir", "backup.attempt.marker.folder_sync"): "removal, empty folder, plain",
    ("sync_dir", "backup.begin_sync"): "backup, empty folder, plain",
    ("sync_dir", "backup.end_sync"): "backup, empty folder, plain",
    ("sync_dir", "backup.keys.folder_sync"): "backup, empty folder, encrypted",
    ("sync_dir", "backup.parent.folder_sync"): "backup, new folder, plain",
    ("sync_dir", "repair.aside.begin_sync"): "table, in place, plain",
    ("sync_dir", "repair.aside.end_sync"): "table, in place, plain",
    ("sync_dir", "repair.aside.folder_sync"): "table, in place, plain",
    ("sync_dir", "repair.aside.parent.folder_sync"): "table, in place, plain",
    ("sync_dir", "repair.parent.folder_sync"): "table, elsewhere, plain",
    ("sync_dir", "repair.target.begin_sync"): "table, elsewhere, plain",
    ("sync_dir", "repair.target.end_sync"): "table, elsewhere, plain",
}

SHARED = {
    ("sync", "manifest.create.sync"): ["table, in place, plain", "table, elsewhere, plain"],
    ("sync", "table.write.sync"): ["table, in place, plain", "table, elsewhere, plain"],
    ("sync", "wal.segment.sync"): ["table, in place, plain", "table, elsewhere, plain"],
    # In place the folder is synced once more, for the name of the folder of originals.
    ("sync_dir", "manifest.create.folder_sync"): [
        "table, elsewhere, plain",
        "backup, empty folder, plain",
    ],
    ("sync_dir", "manifest.marker.folder_sync"): [
        "table, in place, plain",
        "table, elsewhere, plain",
    ],
}
"""Syncs of other rooms that a copy relies on. Those of the names of tables and segments are not
among them: that of the manifest's name, in the same folder, comes after and covers them.
"""


@pytest.mark.parametrize(
    ("site", "name"),
    [*KILLERS.items(), *((site, name) for site, names in SHARED.items() for name in names)],
    ids=lambda part: part if isinstance(part, str) else part[1],
)
def test_a_copy_without_a_sync_is_not_safe(site, name):
    assert next(failures(case(name), without(site)), "")


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in OTHER_MUTANTS if mutant.site in KILLERS],
    ids=lambda mutant: mutant.name,
)
def test_a_copy_with_a_sync_in_the_wrong_place_is_not_safe(mutant):
    assert next(failures(case(KILLERS[mutant.site]), mutant.wrap), "")
