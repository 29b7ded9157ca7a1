"""`holdfast stats --watch`: of a database that another process has open, and of one at rest."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import holdfast as engine
from holdfast.cli.watch import State, Watch
from holdfast.recovery import LIVE_NAME, WATCH_NAME

WRITER = """
import sys, time
import holdfast
with holdfast.open(sys.argv[1]) as db:
    print("open", flush=True)
    number = 0
    while True:
        db[b"%06d" % number] = bytes(100)
        db.get(b"%06d" % number)
        number += 1
        time.sleep(0.002)
"""


@pytest.fixture
def writer(database, root):
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database)],
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
    )
    assert b"open\n" == child.stdout.readline()
    yield child
    child.stdout.close()
    child.kill()
    child.wait()


def test_at_rest_it_says_so(holdfast, database):
    with engine.open(str(database)) as db:
        db[b"a"] = b"1"
    shown = holdfast("stats", database, "--watch", "--count", "2", "--interval", "0.1")
    assert (0, "") == (shown.status, shown.err)
    assert 2 == shown.out.count("nobody has the database open; at rest:")
    assert 2 == shown.out.count("space amplification  1.00")
    lines = holdfast(
        "stats", database, "--watch", "--count", "2", "--interval", "0.1", "--json"
    ).out
    found = [json.loads(line) for line in lines.splitlines()]
    assert ["closed", "closed"] == [each["state"] for each in found]
    assert 1 == found[0]["stats"]["last_seq"]
    assert {LIVE_NAME, WATCH_NAME}.isdisjoint(os.listdir(database))


def test_another_process_shows_its_figures(start, database, writer):
    child = start(
        *("stats", database, "--watch", "--interval", "0.5", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    found = []
    for line in child.stdout:
        found.append(json.loads(line))
        known = [each["stats"]["writes"] for each in found if "rates" in each]
        if len(known) > 3 and known[-1] > known[0] and found[-1]["rates"]["writes"] > 0:
            break
        assert len(found) < 200
    child.send_signal(signal.SIGINT)
    rest, message = child.communicate()
    assert (0, b"") == (child.returncode, message)
    assert all(json.loads(line) for line in rest.splitlines())
    last = found[-1]
    assert last["rates"]["writes"] > 0
    assert last["rates"]["reads"] > 0
    stats = last["stats"]
    assert 0 <= stats["writes"] - stats["reads"] <= 1
    commit = next(each for each in stats["latencies"] if each["name"] == "commit")
    assert 0 < commit["p50"] <= commit["p99"] <= commit["p999"] <= commit["max"]
    assert stats["disk_write_amplification"] > stats["write_amplification"] > 1
    writes = [each["stats"]["writes"] for each in found if each["state"] == "open"]
    assert writes == sorted(writes)
    assert writes[-1] > writes[0]
    assert WATCH_NAME not in os.listdir(database)


def test_a_table_for_people(start, database, writer):
    child = start(
        *("stats", database, "--watch", "--interval", "1.2", "--count", "4"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, message = child.communicate()
    assert (0, b"") == (child.returncode, message)
    text = out.decode()
    assert "each second" in text
    assert "p99.9" in text
    assert "sync" in text
    assert "default     all" in text
    assert max(map(len, text.splitlines())) < 200


def test_a_writer_that_is_killed_is_noticed(database, writer):
    """Its last figures stay in the folder, and nobody takes them for those of a database that is
    open.
    """
    view = Watch(str(database))
    try:
        deadline = time.monotonic() + 60
        while view.look() is not State.OPEN:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert view.figures.stats.writes > 0
        writer.kill()
        writer.wait()
        assert LIVE_NAME in os.listdir(database)
        while view.look() is not State.CLOSED:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert view.figures is None
        assert view.rest.last_seq > 0
    finally:
        view.close()
    with engine.open(str(database)) as db:
        assert len(db) > 0
        assert LIVE_NAME not in os.listdir(database)


def test_who_does_not_publish_is_named(start, database):
    settings = engine.DatabaseSettings(publish="never")
    with engine.open(str(database), settings=settings) as db:
        db[b"a"] = b"1"
        child = start(
            *("stats", database, "--watch", "--count", "2", "--interval", "0.1"),
            stdout=subprocess.PIPE,
        )
        out, _ = child.communicate()
    assert 0 == child.returncode
    assert 2 == out.count(f"open in process {os.getpid()}".encode())
    assert b"has published nothing yet" in out


def test_watching_does_not_open_again_what_has_not_changed(database, monkeypatch):
    """Who opens for reading holds the lock meanwhile: a watch must not keep others from opening."""
    with engine.open(str(database)) as db:
        db[b"a"] = b"1"
    opens = []
    real = engine.open
    monkeypatch.setattr(
        "holdfast.cli.opening.holdfast.open",
        lambda *given, **more: opens.append(given) or real(*given, **more),
    )
    view = Watch(str(database))
    for _ in range(5):
        assert view.look() is State.CLOSED
    assert 1 == len(opens)
    with real(str(database)) as db:
        db[b"b"] = b"2"
    assert view.look() is State.CLOSED
    assert (2, 2) == (len(opens), view.rest.last_seq)
    view.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--interval", "1"],
        ["--count", "1"],
        ["--watch", "--interval", "0"],
        ["--watch", "--interval", "nan"],
        ["--watch", "--count", "0"],
    ],
)
def test_wrong_usage_is_refused(holdfast, database, arguments):
    assert 2 == holdfast("stats", database, *arguments).status


def test_a_folder_without_a_database_is_a_failure(holdfast, tmp_path):
    shown = holdfast("stats", tmp_path, "--watch", "--count", "1")
    assert 1 == shown.status
    assert "there is no database" in shown.err
