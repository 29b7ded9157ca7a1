"""`holdfast changes`: committed batches in order, for people and for programs, once and again."""

import json
import os
import signal
import subprocess
import time

import pytest

import holdfast as engine


@pytest.fixture
def filled(database):
    """A database that keeps its log; returns the number of its last change but one."""
    with engine.open(str(database), settings=engine.DatabaseSettings(wal_keep_bytes=1 << 20)) as db:
        db[b"boot"] = b"2026-11-22"
        with db.transaction() as txn:
            txn[b"n"] = b"\x00\t"
            txn.keyspace("metrics")[b"cpu"] = b"12"
            del txn[b"boot"]
        middle = list(db.changes())[1].seq
        db.delete_range(b"a", b"z")
        db.drop_keyspace("metrics")
    return middle


def test_an_operation_a_line(holdfast, database, filled):
    found = holdfast("changes", database)
    assert (0, "") == (found.status, found.err)
    assert found.out.splitlines() == [
        "1\tput\tdefault\tboot\t2026-11-22",
        "4\tput\tdefault\tn\t\\x00\\t",
        "4\tput\t\tcpu\t12",
        "4\tdelete\tdefault\tboot",
        "5\tdelete_range\tdefault\ta\tz",
    ]
    assert (
        "5\tdelete_range\tdefault\t61\t7a\n"
        == holdfast("changes", database, "--since", filled, "--hex").out
    )
    assert "" == holdfast("changes", database, "--since", 5).out


def test_a_change_a_line_for_programs(holdfast, database, filled):
    lines = holdfast("changes", database, "--json", "--since", "1").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "seq": 4,
            "operations": [
                {"kind": "put", "keyspace": "default", "key": "n", "value": "\\x00\\t"},
                {"kind": "put", "keyspace": None, "key": "cpu", "value": "12"},
                {"kind": "delete", "keyspace": "default", "key": "boot"},
            ],
        },
        {
            "seq": 5,
            "operations": [
                {"kind": "delete_range", "keyspace": "default", "key": "a", "stop": "z"}
            ],
        },
    ]


def test_a_merge_names_its_function(holdfast, database):
    with engine.open(str(database)) as db:
        db.merge(b"log", "append", b"opened;")
    assert "1\tmerge\tdefault\tlog\topened;\tappend\n" == holdfast("changes", database).out
    (operation,) = json.loads(holdfast("changes", database, "--json").out)["operations"]
    assert ("opened;", "append") == (operation["value"], operation["function"])


def test_an_encrypted_database_is_opened_with_its_key(holdfast, database, tmp_path):
    (tmp_path / "key").write_bytes(bytes(range(32)))
    with engine.open(str(database), key=bytes(range(32))) as db:
        db[b"a"] = b"1"
    assert 1 == holdfast("changes", database).status
    found = holdfast("changes", database, "--key-file", tmp_path / "key")
    assert (0, "1\tput\tdefault\ta\t1\n") == (found.status, found.out)


def test_what_the_log_does_not_hold_is_said(holdfast, database):
    for key in (b"a", b"b"):
        with engine.open(str(database)) as db:
            db[key] = b"1"
    found = holdfast("changes", database)
    assert 1 == found.status
    assert "the log does not hold all changes after 0 any more: it is kept from 2 on" in found.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "99"), "the sequence numbers are 0 to 5"),
        (("--since", "-1"), "the sequence numbers are 0 to 5"),
        (("--json", "--raw"), "JSON cannot hold raw bytes"),
        (("--interval", "0"), "an interval is more than 0"),
    ],
)
def test_wrong_usage(holdfast, database, filled, arguments, says):
    found = holdfast("changes", database, *arguments)
    assert 2 == found.status
    assert says in found.err


def test_following_waits_while_another_process_has_it_open(start, database, filled):
    """Each change once; what a process wrote comes when that has closed the database."""
    child = start(
        "changes", database, "--since", "4", "--follow", "--interval", "0.05",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert b"5\tdelete_range\tdefault\ta\tz\n" == child.stdout.readline()
        for number in (6, 7):
            db = None
            while db is None:
                try:
                    db = engine.open(str(database))
                except engine.DatabaseLockedError:
                    # It is looking just now.
                    time.sleep(0.01)
            with db:
                db[b"k"] = b"%d" % number
                time.sleep(0.2)
            assert b"%d\tput\tdefault\tk\t%d\n" % (number, number) == child.stdout.readline()
        os.kill(child.pid, signal.SIGINT)
        assert 130 == child.wait(10)
        assert b"" == child.stdout.read()
        assert b"" == child.stderr.read()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()
