"""Syncs that no workload of the crash explorer reaches and no copy makes: of what is refused for
want of room, of key files, and of an export. Without any one of them, or with it in the wrong
place, some power cut leaves what it must not.
"""

import errno
import functools
import re
from unittest.mock import patch

import pytest

import holdfast
from holdfast import CorruptionError, WrongKeyError
from holdfast.cli import csv_export
from holdfast.crypto import KeyRing, KeySource, key_files
from holdfast.engine import open_database
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.env.fault import take_effect
from holdfast.testing.mutants import OTHER_FOLLOWS, OTHER_MUTANTS, without
from tests.crash import test_copies, test_sync_mutants
from tests.crash.copies import KEY, SMALL
from tests.crash.cuts import Case, booted, bytes_of, check_opens, content, failures
from tests.hostile.folders import FOLDER
from tests.tidy.test_architecture import section

NEW_KEY = bytes(range(32, 64))
CSV = b"k,v\n" + b"key,value\n" * 100


class Refused:
    """The judge of a call that is refused because one write finds no room, which took effect."""

    def __init__(self, site, call):
        self.site = site
        self.call = call
        self.before = {"default": {b"k": b"v"}}

    def prepare(self, wrap):
        machine = SimEnv(5)
        env = FaultEnv(wrap(machine))
        database = open_database(FOLDER, env=env, settings=SMALL)
        database[b"k"] = b"v"
        database._engine.upkeep.wait_idle()
        env.add(FaultRule(kind="write", site=self.site, error=errno.ENOSPC, effect=take_effect))

        def call():
            with pytest.raises(holdfast.DiskFullError):
                self.call(database)

        return machine, call

    def judge(self, state, *, is_over):
        machine = booted(state)
        with open_database(FOLDER, create=False, env=machine) as database:
            found = content(database)
            assert database.verify().ok
        if not is_over:
            # Nobody was told yet.
            found["default"].pop(b"refused", None)
        assert found == self.before
        machine.cut_power()


class Rekey:
    """The judge of a change of the key."""

    def prepare(self, wrap):
        machine = SimEnv(5)
        database = open_database(FOLDER, env=wrap(machine), settings=SMALL, key=KEY)
        database[b"k"] = b"v"
        database._engine.upkeep.wait_idle()
        return machine, lambda: database.rekey(NEW_KEY)

    def judge(self, state, *, is_over):
        """One of the two keys opens it; when the call has returned only the new one, and no file is
        there that the old one opens.
        """
        machine = booted(state)
        key = NEW_KEY
        if is_over:
            assert len(key_files(machine, FOLDER)) == 1
        else:
            try:
                open_database(FOLDER, env=booted(state), key=NEW_KEY, read_only=True).close()
            except (WrongKeyError, CorruptionError):
                key = KEY
        check_opens(machine, FOLDER, key, {"default": {b"k": b"v"}})
        machine.cut_power()


class Open:
    """The judge of an open that finds data keys which no file needs any more."""

    def prepare(self, wrap):
        machine = SimEnv(5)
        with open_database(FOLDER, env=machine, settings=SMALL, key=KEY) as database:
            database[b"k"] = b"v"
            database.rekey(KEY, rewrite=True)
        env = wrap(machine)
        return machine, lambda: open_database(FOLDER, create=False, env=env, key=KEY)

    def judge(self, state, *, is_over):
        """When it has returned they are gone."""
        machine = booted(state)
        if is_over:
            assert len(key_files(machine, FOLDER)) == 1
            assert KeyRing.load(machine, FOLDER, KeySource(KEY)).epochs == (2,)
        check_opens(machine, FOLDER, KEY, {"default": {b"k": b"v"}})
        machine.cut_power()


class Export:
    """The judge of an export: a file has its name when it is complete."""

    def prepare(self, wrap):
        machine = SimEnv(5)
        machine.make_dir("/out", site="test")
        machine.sync_dir("/", site="test")
        env = wrap(machine)

        def call():
            with patch.object(csv_export, "PosixEnv", lambda: env):
                with csv_export._output("/out/rows.csv") as write:
                    write(CSV[:500])
                    write(CSV[500:])

        return machine, call

    def judge(self, state, *, is_over):
        assert bytes_of(booted(state), "/out").get("rows.csv", CSV) == CSV


CASES = {
    "a commit": Refused("wal.record.write", lambda db: db.put(b"refused", b"v")),
    "an edit": Refused("manifest.edit.write", lambda db: db.flush()),
    "a change of the key": Rekey(),
    "an open": Open(),
    "an export": Export(),
}


@functools.cache
def case(name):
    return Case(CASES[name].prepare, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_cut_at_any_call_leaves_what_it_may(name):
    assert list(failures(case(name))) == []
    assert len(case(name).verdicts) > 2


KILLERS = {
    ("sync", "export.sync"): "an export",
    ("sync", "keys.sync"): "a change of the key",
    ("sync", "manifest.edit.undo_sync"): "an edit",
    ("sync", "wal.record.wipe_sync"): "a commit",
    ("sync_dir", "keys.folder_sync"): "a change of the key",
    ("sync_dir", "keys.obsolete.folder_sync"): "an open",
}


@pytest.mark.parametrize("site", KILLERS, ids=lambda site: site[1])
def test_without_a_sync_it_does_not(site):
    assert next(failures(case(KILLERS[site]), without(site)), "")


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in OTHER_MUTANTS if mutant.site in KILLERS],
    ids=lambda mutant: mutant.name,
)
def test_with_a_sync_in_the_wrong_place_it_does_not(mutant):
    assert next(failures(case(KILLERS[mutant.site]), mutant.wrap), "")


def test_every_sync_has_a_mutant():
    """Another test compares the table with the source."""
    killed = [test_sync_mutants.KILLERS, test_copies.KILLERS, KILLERS]
    table = re.findall(r"^\| `([\w.]+)` \|", section("Where syncs happen"), re.MULTILINE)
    assert sorted(table) == sorted(site for killers in killed for _, site in killers)
    only_taken_out = set(test_copies.KILLERS) | set(KILLERS) - set(OTHER_FOLLOWS)
    assert {site for _, site in only_taken_out - set(OTHER_FOLLOWS)} == {
        "repair.kept.sync",
        "backup.attempt.folder_sync",
        "backup.attempt.marker.folder_sync",
    }
