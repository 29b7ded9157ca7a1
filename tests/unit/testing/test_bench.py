"""The bench runs with tiny sizes and reports what it found. No time is compared with anything."""

import json
import os

import pytest

from holdfast.testing import (
    bench,
    bench_bulk,
    bench_commit,
    bench_counters,
    bench_measure,
    bench_report,
    result_page,
)
from holdfast.testing.bench_measure import Figure, Options
from holdfast.testing.bench_workloads import WORKLOADS, description

TINY = {
    "count": 300,
    "reads": 200,
    "rounds": 2,
    "starts": 1,
    "commits": 20,
    "threads": 4,
    "replay_bytes": 200_000,
    "load_bytes": 2_000_000,
}


@pytest.fixture
def options(tmp_path):
    return Options(folder=str(tmp_path / "bench"), **TINY)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_gives_figures_and_leaves_no_file_behind(name, options):
    figures = WORKLOADS[name](options)
    assert figures
    for figure in figures:
        assert figure.rounds, figure.what
        assert figure.unit
        assert figure.sync in ("commit", "none", "-")
    assert os.listdir(options.folder) == []


def test_every_workload_is_described():
    for name in WORKLOADS:
        assert description(name).endswith(".")


def figure(**changes):
    return Figure(**{"what": "w", "unit": "us", "rounds": [3.0, 1.0, 2.0], **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"budget": 2.0}, True),
        ({"budget": 1.9}, False),
        ({"budget": 2.0, "at_least": True}, True),
        ({"budget": 2.1, "at_least": True}, False),
    ],
)
def test_the_median_is_compared_with_the_budget(changes, expected):
    assert figure(**changes).is_met is expected


def test_a_figure_survives_json():
    given = figure(cpu=[1.5], beside=[9.0], budget=2.0, note="n")
    assert Figure(**json.loads(json.dumps(given.to_plain()))) == given


def test_rounds_are_interleaved():
    order = []
    works = [lambda name=name: order.append(name) or 1 for name in "ab"]
    taken = bench_measure.rounds_of(2, *works)
    assert order == list("abab" * 2)
    assert [len(rounds.wall) for rounds in taken] == [2, 2]
    assert [len(rounds.beside) for rounds in taken] == [2, 2]


def test_values_are_as_compressible_as_they_say():
    for kind, zeros in (("incompressible", 0), ("half-compressible", 50)):
        for value in bench_measure.values_of(kind, 1):
            assert len(value) == bench_measure.VALUE_BYTES
            assert value.endswith(bytes(zeros))


def test_the_bare_file_begins_again_at_the_front_and_does_not_grow(tmp_path):
    path = str(tmp_path / "bare")
    record = bench_commit.FILE_BYTES // 3
    bare = bench_commit.BareFile(path, record)
    try:
        assert bare.write(3) == 3
    finally:
        bare.close()
    assert os.path.getsize(path) == bench_commit.FILE_BYTES


def test_a_commit_logs_what_the_record_holds(options):
    with bench_commit.opened(options) as (committer, _, logged):
        assert logged == committer.log_bytes()
        assert logged > bench_measure.ROW_BYTES


def test_a_thread_that_fails_fails_the_round(options, monkeypatch):
    with bench_commit.opened(options) as (committer, _, _):
        crowd = bench_commit.Crowd(committer, 2)
        monkeypatch.setattr(committer, "rows", lambda count: [("text", b"")] * count)
        try:
            with pytest.raises(TypeError):
                crowd.commit(2)
        finally:
            crowd.close()


def test_an_update_that_is_lost_is_an_error(options, monkeypatch):
    with bench_counters.counting(options, 2, "none") as made:
        assert made.add() == made.retry() == 2 * options.threads
        monkeypatch.setattr(made, "_add", lambda: None)
        with pytest.raises(ValueError, match=r"the counter is b'32', not 40"):
            made.add()


def test_lost_rows_are_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="0 of 5"):
        bench_bulk.reopen(str(tmp_path / "db"), False, 5, lambda work: work())


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.01234, "0.0123"), (1, "1.00"), (99.94, "99.9"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits(value, expected):
    assert bench_report.number(value) == expected


def test_the_pages_show_every_figure(options):
    results = [
        bench_report.Result("put", [figure(budget=1.0), figure(what="v", note="seen")], 1.0, (0, 0))
    ]
    report = bench_report.Report("./dev bench put", options, {"memory": "1 GiB"}, results)
    page = bench_report.markdown(report)
    assert "    ./dev bench put\n" in page
    assert "- memory: 1 GiB" in page
    assert "| w | us | - | 1.00 | 2.00 | 3.00 | - | - | <= 1.00 | missed |" in page
    assert "- v: seen." in page
    shown = bench_report.table(results[0])
    assert "missed" in shown
    assert max(len(line) for line in shown.splitlines()) < 120


SIZES = ["--count", "200", "--reads", "100", "--rounds", "1", "--commits", "5"]


def test_the_command_prints_tables_and_writes_json_and_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", list)
    assert bench.main(["scan", "commit", "--json", "out.json", "--write", *SIZES]) == 0
    assert "scan forward, row by row" in capsys.readouterr().out
    plain = json.loads((tmp_path / "out.json").read_text())
    assert [result["name"] for result in plain["workloads"]] == ["scan", "commit"]
    assert plain["options"]["count"] == 200
    page = (tmp_path / bench.PAGE).read_text()
    assert "./dev bench scan commit --json out.json --write --count 200" in page
    assert "## scan" in page
    assert page.isascii()


def test_a_workload_that_fails_is_said_and_ends_with_status_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The fresh process does not know what it is asked for, and ends.
    monkeypatch.setattr(bench, "CHILD", "--no-such-option")
    assert bench.main(["threads", *SIZES]) == 1
    assert "threads: the workload failed" in capsys.readouterr().out


def test_an_unknown_workload_is_wrong_usage(capsys):
    assert bench.main(["nonsense"]) == 2
    assert "there are startup, put" in capsys.readouterr().err


def test_the_list_names_every_workload(capsys):
    assert bench.main(["--list"]) == 0
    shown = capsys.readouterr().out
    for name in WORKLOADS:
        assert f"{name}\n" in shown
