"""`holdfast bench` runs with tiny sizes and reports what it found. No time is compared.

The peers are installed by ./dev; LevelDB has no wheel for Python 3.13 and newer.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import threading
import time
from array import array
from xml.etree import ElementTree as ET

import pytest

import holdfast
from holdfast.cli import main
from holdfast.testing import (
    result_page,
    versus,
    versus_budget,
    versus_encrypted,
    versus_holdfast,
    versus_run,
    versus_store,
)
from holdfast.testing.versus_budget import AT_LEAST, AT_MOST, Budget, budgets
from holdfast.testing.versus_child import Cell, Order, Passes, load_dataset
from holdfast.testing.versus_input import DATASETS, late_order, zipfian
from holdfast.testing.versus_measure import (
    NEVER,
    Calls,
    Cold,
    Threads,
    compress,
    drop_pages,
    percentile,
    resident_share,
    sync_files,
    written,
)
from holdfast.testing.versus_picture import picture
from holdfast.testing.versus_report import Report, closing, page
from holdfast.testing.versus_run import Failure, Run
from holdfast.testing.versus_scale import SCALES
from holdfast.testing.versus_store import ENCRYPTED, ENGINES, OURS, Setup, is_installed, load
from holdfast.testing.versus_workload import WORKLOADS, description

HERE = [name for name in ENGINES if name != "plyvel" or sys.version_info < (3, 13)]
"""The engines that have to be installed where the tests run."""

TINY = SCALES["tiny"]
MIB = 1 << 20


def setup_in(folder, sync="none", **changes):
    given = {"cache_bytes": MIB, "memtable_bytes": MIB, "has_writes": True, **changes}
    return Setup(folder=str(folder / "db"), sync=sync, **given)


def order(engine, folder, **changes):
    return Order(engine=engine, folder=str(folder), scale="tiny", seed=1, **changes)


# -- the stores: one suite over all


@pytest.fixture(params=HERE)
def engine(request):
    assert is_installed(request.param), "./dev installs requirements/bench.txt"
    return request.param


def test_a_store_puts_gets_deletes_and_scans(engine, tmp_path):
    store = load(engine)(setup_in(tmp_path))
    store.fill((b"%04d" % number, b"a%d" % number) for number in range(2_500))
    put, delete, get = store.putter(), store.deleter(), store.getter()
    for number in range(1_200):
        put(b"%04d" % number, b"b%d" % number)
    for number in range(500, 1_700):
        delete(b"%04d" % number)
    store.finish()
    expected = {
        b"%04d" % number: (b"b%d" if number < 1_200 else b"a%d") % number
        for number in [*range(500), *range(1_700, 2_500)]
    }
    assert dict(store.rows()) == expected
    assert list(store.rows()) == sorted(expected.items())
    assert list(store.rows(reverse=True)) == sorted(expected.items(), reverse=True)
    assert [key for key, _ in store.rows(b"0499", limit=3)] == [b"0499", b"1700", b"1701"]
    assert list(store.rows(b"9", limit=3)) == []
    assert [row for chunk in store.chunks(7) for row in chunk] == sorted(expected.items())
    assert get(b"0001") == b"b1"
    assert get(b"0500") is None
    assert store.many_getter()([b"0001", b"2000"])
    store.settle()
    store.close()


def test_what_a_store_wrote_is_there_after_a_reopen(engine, tmp_path):
    store = load(engine)(setup_in(tmp_path))
    store.batch_putter()([(b"a", b"1"), (b"b", b"2")])
    store.putter()(b"c", b"3")
    store.close()
    store = load(engine)(setup_in(tmp_path, "commit"))
    store.committer()(b"d", b"4")
    store.close()
    store = load(engine)(setup_in(tmp_path, "-", has_writes=False, is_cold=True))
    get = store.getter()
    assert [get(key) for key in (b"a", b"b", b"c", b"d", b"e")] == [b"1", b"2", b"3", b"4", None]
    store.close()


@pytest.mark.parametrize("sync", ["commit", "none"])
@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
def test_an_update_is_a_transaction_that_many_threads_may_make(engine, tmp_path, sync, isolation):
    store = load(engine)(setup_in(tmp_path, sync))
    store.fill([(b"%04d" % number, b"old") for number in range(40)])
    store.finish()
    update = store.updater(isolation)

    def work(first):
        for number in range(first, 40, 4):
            update(b"%04d" % number, b"new %d" % number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.finish()
    assert dict(store.rows()) == {b"%04d" % number: b"new %d" % number for number in range(40)}
    store.close()


def test_a_reader_beside_a_writer_sees_what_it_committed(engine, tmp_path):
    store = load(engine)(setup_in(tmp_path))
    store.fill([(b"k", b"old")])
    get = store.fresh_getter()
    assert get(b"k") == b"old"
    store.putter()(b"k", b"new")
    store.finish()
    assert [get(b"k") for _ in range(200)][-1] == b"new"
    store.close()


def test_an_engine_that_syncs_says_how(engine):
    assert set(load(engine).syncs) == {"commit", "none"}
    version, settings = versus_store.settings_of(engine)
    assert version[0].isdigit()
    assert "Durable" in settings


def test_tasks_commit_through_threads_where_an_engine_has_nothing_better(tmp_path):
    kind = load("sqlite3")

    async def write():
        async with kind.tasks(setup_in(tmp_path, "commit")) as put:
            await asyncio.gather(*(put(b"%d" % number, b"v") for number in range(20)))

    asyncio.run(write())
    store = kind(setup_in(tmp_path))
    assert len(list(store.rows())) == 20
    store.close()


# -- the workloads


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The loaded databases of Holdfast and SQLite, by engine and data set."""
    made = {}
    for name in ("holdfast", "sqlite3"):
        for dataset in DATASETS:
            folder = tmp_path_factory.mktemp("data") / f"{name}-{dataset}"
            load_dataset(order(name, folder, dataset=dataset))
            made[name, dataset] = str(folder)
    return made


@pytest.mark.parametrize("engine", [OURS, ENCRYPTED])
def test_what_is_loaded_has_the_same_runs_with_a_key_and_without(engine, tmp_path):
    """Otherwise a get would cost what there is to ask, not what a key costs."""
    folder = tmp_path / "data"
    load_dataset(order(engine, folder, dataset="rows"))
    key = {"key": versus_encrypted.KEY} if engine == ENCRYPTED else {}
    with holdfast.open(folder, **key) as db:
        levels = db.stats().keyspaces[0].levels
        assert [(each.level, each.entries) for each in levels if each.tables] == [(1, TINY.rows)]


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("engine", ["holdfast", "sqlite3"])
def test_every_workload_gives_a_cell(name, engine, datasets, tmp_path):
    workload = WORKLOADS[name]
    if not workload.opens and not load(engine).has_tasks():
        assert engine == OURS  # the runner leaves the cell out and says so
        return
    data = datasets[engine, workload.data] if workload.data else ""
    cell = Passes(order(engine, tmp_path, workload=name, data=data)).run()
    assert (cell.workload, cell.engine) == (name, engine)
    assert cell.rate > 0
    assert cell.busy_rate > 0
    assert 0 < cell.p50 <= cell.p99 <= cell.p999 <= cell.max
    assert cell.space_bytes > 0
    assert bool(cell.user_bytes) == (workload.has_writes and name != "get-writing")
    assert (cell.resident is not None) == workload.is_cold


def test_every_workload_is_described():
    for name in WORKLOADS:
        assert description(name).endswith("."), name


def test_a_workload_that_reads_leaves_its_data(datasets, tmp_path):
    data = datasets["sqlite3", "rows"]
    for name in ("get-hot", "overwrite"):
        before = {file: os.path.getsize(os.path.join(data, file)) for file in os.listdir(data)}
        Passes(order("sqlite3", tmp_path, workload=name, data=data)).run()
        assert before == {
            file: os.path.getsize(os.path.join(data, file)) for file in os.listdir(data)
        }


def test_loaded_data_that_are_empty_are_refused(tmp_path):
    load("sqlite3")(setup_in(tmp_path)).close()
    passes = Passes(order("sqlite3", tmp_path / "x", workload="get-hot", data=str(tmp_path / "db")))
    with pytest.raises(ValueError, match="empty"):
        passes.run()


def test_the_writes_of_a_workload_are_counted_and_its_space_too(datasets, tmp_path):
    """SQLite's log and table both have every row, so that it writes more than it is given."""
    cell = Passes(order("sqlite3", tmp_path, workload="fill-random")).run()
    rows = TINY.rows * 116
    assert cell.user_bytes == cell.live_bytes == rows
    assert cell.space_bytes > rows
    assert 2 * rows < cell.written_bytes < 20 * rows


def test_one_row_in_twenty_comes_late():
    arrived = late_order(10_000, random.Random(1))
    assert sorted(arrived) == list(range(10_000))
    late = sum(number < highest for highest, number in running_maximum(arrived))
    assert 300 < late < 700
    assert max(highest - number for highest, number in running_maximum(arrived)) <= 501


def running_maximum(numbers):
    highest = -1
    for number in numbers:
        yield highest, number
        highest = max(highest, number)


def test_the_first_rank_is_drawn_most():
    drawn = zipfian(20_000, range(100), random.Random(1))
    assert drawn.count(0) > 1.5 * drawn.count(1) > 2 * drawn.count(9)


# -- measuring


def test_a_clocked_pass_stops_at_its_deadline_and_a_plain_one_does_not():
    done = []
    work = Calls(done.append, range(100), finish=lambda: done.append("finish"))
    latencies = array("q", bytes(800))
    assert work.clocked(latencies, time.perf_counter_ns()).units == 1
    assert done == [0, "finish"]
    assert work.clocked(latencies, NEVER).units == 100
    assert all(latencies)
    assert work.plain().units == 100


def test_the_time_of_dropping_the_page_cache_does_not_count():
    drops = []

    def drop():
        drops.append(1)
        time.sleep(0.05)

    taken = Cold(lambda key: None, [b"k"] * (2 * Cold.EACH + 1), drop).plain()
    assert len(drops) == 3
    assert taken.units == 2 * Cold.EACH + 1
    assert taken.seconds < 0.05


def test_threads_put_all_shares_and_raise_what_one_of_them_raised():
    done = []
    shares = [[(b"%d" % thread, b"%d" % row) for row in range(5)] for thread in range(3)]
    work = Threads(lambda key, value: done.append((key, value)), shares)
    assert work.plain().units == 15
    assert sorted(done) == sorted(row for share in shares for row in share)

    def fail(key, value):
        if key == b"1":
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        Threads(fail, shares).plain()


def test_latencies_of_shares_that_ended_early_come_to_the_front():
    latencies = array("q", [1, 2, 0, 3, 0, 0, 4, 5, 6])
    compress(latencies, [0, 3, 6, 9], [2, 1, 3])
    assert list(latencies[:6]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51), (0.99, 100), (1.0, 100)])
def test_percentiles(share, expected):
    assert percentile(range(1, 101), share) == expected


def test_dropped_pages_are_not_in_the_page_cache(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    assert resident_share(str(tmp_path)) == 1.0
    sync_files(str(tmp_path))
    drop_pages(str(tmp_path))
    # A file system in memory has nowhere else to keep them.
    assert resident_share(str(tmp_path)) in {0.0, 1.0}


def test_what_a_process_writes_is_counted(tmp_path):
    before = written(str(tmp_path))
    (tmp_path / "file").write_bytes(bytes(100_000))
    assert 100_000 <= written(str(tmp_path)).since(before).calls < 110_000


# -- gathering and showing


COUNTERS = {"dirtied_bytes": None, "device_bytes": None}


def cell_of(workload="scan", engine=OURS, **changes):
    plain = dict.fromkeys(("busy_rate", "p50", "p99", "p999", "max", "cpu"), 1.0)
    sizes = dict.fromkeys(("peak_bytes", "user_bytes", "live_bytes", "space_bytes"), 100)
    given = {**plain, **sizes, "rate": 10.0, "written_bytes": 300, **COUNTERS, **changes}
    return Cell(workload=workload, engine=engine, **given)


def report_of(*cells, engines=("holdfast", "sqlite3")):
    run = Run(cells=list(cells))
    return Report(
        command="holdfast bench",
        machine={"processor": "one"},
        scale="tiny",
        rounds=1,
        seed=1,
        engines=list(engines),
        settings={"holdfast": ("1", "Words.")},
        run=run,
        budgets=budgets(run, list(engines)),
    )


def test_medians_are_taken_over_rounds_and_ratios_over_medians():
    ours = [cell_of(rate=rate) for rate in (10.0, 40.0, 20.0)]
    run = Run(cells=[*ours, cell_of(engine="lmdb", rate=5.0), cell_of(engine="sqlite3", rate=8.0)])
    assert run.median("scan", OURS).rate == 20.0
    assert run.ratio("scan", "lmdb") == 4.0
    assert run.best_peer("scan", list(ENGINES)) == "sqlite3"
    assert run.median("scan", "rocksdict") is None
    assert run.ratio("scan", "rocksdict") is None


@pytest.mark.parametrize(
    ("sign", "measured", "verdict"),
    [
        (AT_LEAST, 1.0, "met"),
        (AT_LEAST, 0.9, "missed"),
        (AT_MOST, 1.0, "met"),
        (AT_MOST, 1.1, "missed"),
        (AT_MOST, None, "not measured"),
    ],
)
def test_a_budget_says_whether_it_is_met(sign, measured, verdict):
    budget = Budget(what="w", sign=sign, bound=1.0, unit="times", measured=measured)
    assert budget.verdict == verdict


def test_budgets_compare_the_cells_that_they_name():
    run = Run(
        cells=[
            cell_of("scan-columns", rate=90.0),
            cell_of("scan", "lmdb", rate=20.0),
            cell_of("fill-sequential"),
            cell_of("overwrite", space_bytes=90, max=3.0),
            cell_of("overwrite", "rocksdict", written_bytes=200, max=2.0),
        ]
    )
    found = {budget.what: budget for budget in budgets(run, list(ENGINES))}
    assert found["scan in batches, to LMDB's row by row"].measured == 4.5
    assert found["write amplification of keys in order"].measured == 3.0
    assert found["write amplification of keys in order"].verdict == "missed"
    assert found["write amplification of overwrites, to RocksDB"].measured == 1.5
    assert found["space after overwrites, to RocksDB"].verdict == "met"
    assert found["slowest overwrite, to RocksDB"].measured == 1.5
    assert found["hot get, to LMDB"].verdict == "not measured"


def test_budgets_of_holdfast_alone_come_from_the_other_bench(tmp_path):
    made, failures = versus_budget.measure_alone("tiny", str(tmp_path))
    assert failures == []
    assert [budget.what for budget in made] == ["durable commit / bare write and sync"]
    assert made[0].measured > 0


def test_the_page_shows_ratios_budgets_figures_and_settings():
    report = report_of(cell_of(), cell_of(engine="sqlite3", rate=4.0))
    report.run.failures.append(Failure(workload="queue", engine="lmdb", reason="no room"))
    shown = page(report, "bench.svg")
    assert "| scan | 10.0 | sqlite3 | 2.50 | 2.50 |" in shown
    assert "![Holdfast's rate as a multiple of each peer's](bench.svg)" in shown
    assert "failed: queue with lmdb: no room" in shown
    assert "\nWords.\n" in shown
    assert "2.50" in closing(report)


def test_the_picture_has_a_bar_for_each_ratio_on_its_side_of_the_line():
    report = report_of(
        cell_of(),
        cell_of(engine="sqlite3", rate=4.0),
        cell_of("queue"),
        cell_of("queue", "sqlite3", rate=40.0),
    )
    drawn = ET.fromstring(picture(report))
    bars = [
        one for one in drawn.iter("{http://www.w3.org/2000/svg}rect") if one.get("height") == "6"
    ]
    ahead, behind = (float(one.get("x")) for one in bars)
    assert behind < ahead
    words = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"scan", "queue", "2.50", "0.250"} <= set(words)


# -- the command


def test_a_run_leaves_nothing_but_what_was_asked_for(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", list)
    given = ["commit", "get-hot", "commit-tasks", "--engines", "holdfast,sqlite3"]
    monkeypatch.setattr(versus_holdfast.HoldfastStore, "has_tasks", classmethod(lambda cls: False))
    status = main(
        ["bench", *given, "--scale", "tiny", "--rounds", "2", "--json", "f.json", "--write"]
    )
    out, _ = capfd.readouterr()
    assert status == 0, out
    assert sorted(os.listdir()) == ["docs", "f.json"]
    assert sorted(os.listdir("docs/results")) == ["bench.json", "bench.md", "bench.svg"]
    found = json.loads((tmp_path / "f.json").read_text())
    assert len(found["run"]["cells"]) == 10
    assert found["run"]["left_out"] == [
        "commit-tasks with holdfast: it has no interface for asyncio here"
    ]
    assert found["ratios"]["commit"]["sqlite3"] > 0
    assert "holdfast bench commit get-hot" in (tmp_path / versus.PAGE).read_text()
    assert "durable commit, to the best peer" in out


def test_some_workloads_have_a_page_of_their_own_with_the_budgets_they_are_about(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", list)
    given = ["commit-threads", "transactions-threads", "--engines", "holdfast", "--rounds", "1"]
    where = os.path.join("docs", "results", "bench-threads.md")
    assert main(["bench", *given, "--scale", "tiny", "--write", "--page", where]) == 0
    out, _ = capfd.readouterr()
    assert sorted(os.listdir("docs/results")) == [
        "bench-threads.json",
        "bench-threads.md",
        "bench-threads.svg",
    ]
    text = (tmp_path / where).read_text()
    assert f"--write --page {where}" in text
    assert "(bench-threads.svg)" in text
    for shown in (out, text):
        assert "64 threads of transactions, to commits" in shown
        assert "hot get, to LMDB" not in shown


def test_a_cell_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch, capfd):
    spawn = versus_run.spawn

    def failing(given):
        if given.engine == "sqlite3":
            given = Order(**{**json.loads(json.dumps(given_plain(given))), "workload": "nothing"})
        return spawn(given)

    monkeypatch.setattr(versus_run, "spawn", failing)
    given = ["bench", "commit", "--engines", "holdfast,sqlite3", "--scale", "tiny", "--rounds", "1"]
    assert main([*given, "--folder", str(tmp_path)]) == 1
    out, _ = capfd.readouterr()
    assert "failed: commit with sqlite3: KeyError: 'nothing'" in out
    assert os.listdir(tmp_path) == []


def test_a_run_goes_on_with_the_cells_that_were_kept(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    spawn, measured = versus_run.spawn, []

    def counting(order):
        if order.workload:
            if len(measured) == 3:
                raise KeyboardInterrupt
            measured.append((order.workload, order.engine, order.seed))
        return spawn(order)

    monkeypatch.setattr(versus_run, "spawn", counting)
    given = ["bench", "commit", "get-hot", "--engines", "holdfast,sqlite3", "--scale", "tiny"]
    given += ["--resume", "cells.json", "--json", "f.json", "--rounds"]
    with pytest.raises(KeyboardInterrupt):
        versus.run(parsed([*given[1:], "1"]))
    assert [each[:2] for each in measured] == [
        ("commit", "holdfast"), ("commit", "sqlite3"), ("get-hot", "holdfast"),
    ]  # fmt: skip
    assert sorted(os.listdir()) == ["cells.json"]
    kept = json.loads((tmp_path / "cells.json").read_text())["what"]["cells"]
    measured[:] = [("none", "", 0)] * 10
    assert main([*given, "1"]) == 0
    assert [each[:2] for each in measured[10:]] == [("get-hot", "sqlite3")]
    assert main([*given, "2"]) == 0
    assert len(measured) == 15
    assert {seed for _, _, seed in measured[11:]} == {2}
    found = json.loads((tmp_path / "f.json").read_text())["run"]
    assert len(found["cells"]) == 8
    assert all(each["cell"] in found["cells"] for each in kept)
    capfd.readouterr()
    assert main([*given, "2", "--seed", "5"]) == 2
    assert "--resume: cells.json is of another run" in capfd.readouterr().err
    (tmp_path / "cells.json").write_text("{")
    assert main([*given, "2"]) == 2
    assert "--resume: " in capfd.readouterr().err


def parsed(given):
    parser = argparse.ArgumentParser()
    versus.configure(parser)
    return parser.parse_args(given)


def given_plain(given):
    return {name: getattr(given, name) for name in Order.__dataclass_fields__}


def test_a_peer_that_is_not_installed_is_left_out_and_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(versus, "is_installed", lambda name: name == OURS)
    given = ["bench", "commit", "--scale", "tiny", "--rounds", "1", "--folder", str(tmp_path)]
    assert main(given) == 0
    out, _ = capfd.readouterr()
    assert "rocksdict: it is not installed; pip install '.[bench]'" in out


@pytest.mark.parametrize(
    "given",
    [["earthquake"], ["--engines", "oracle"], ["--rounds", "0"], ["--scale", "huge"], ["--none"]],
)
def test_wrong_usage(given, capfd):
    assert main(["bench", *given]) == 2
    assert capfd.readouterr().err


def test_the_list_says_what_there_is(capfd):
    assert main(["bench", "--list"]) == 0
    out, _ = capfd.readouterr()
    assert all(f"{name}\n    " in out for name in WORKLOADS)
