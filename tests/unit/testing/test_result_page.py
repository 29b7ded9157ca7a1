"""Pages of results are of a commit, and pieces of work are done beside each other."""

import subprocess

import pytest

from holdfast.cli import main as command
from holdfast.testing import (
    bench,
    bench_report,
    filters,
    fuzz,
    histories,
    interleavings_run,
    pool_compare,
    result_page,
)
from holdfast.testing.pieces import do_pieces
from tools import branches, mutate

VERBS = {
    "histories": histories.main,
    "histories --engine": lambda arguments: histories.main(["--engine", *arguments]),
    "interleavings": interleavings_run.main,
    "pool": pool_compare.main,
    "filters": filters.main,
    "fuzz": fuzz.main,
    "bench": bench.main,
    "mutate": mutate.main,
    "coverage": branches.main,
}
COMMANDS = {"torture": ["torture", ".", "--seed", "1", "--minutes", "0.01"], "bench": ["bench"]}


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkout_with_changes_is_refused_before_anything_is_done(
    verb, monkeypatch, tmp_path, capsys
):
    changed = ["src/a.py", "dev", "src/b.pyx", "c", "d"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", lambda: changed)
    with pytest.raises(SystemExit) as ended:
        VERBS[verb](["--write"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert "uncommitted changes: src/a.py, dev, src/b.pyx and 2 more" in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_so_do_commands_that_write_a_page(verb, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", lambda: ["src/a.py"])
    assert command([*COMMANDS[verb], "--write"]) == 2
    printed = capsys.readouterr()
    assert "there are uncommitted changes: src/a.py; commit them first" in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "docs" / "results").mkdir(parents=True)
    for name in ("code.py", "other.py", "docs/results/page.md", "docs/page.md"):
        (tmp_path / name).write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    return tmp_path, git


def test_what_differs_from_the_commit_is_found(checkout):
    folder, git = checkout
    inside = str(folder / "docs")
    assert bench_report.uncommitted(inside) == []
    (folder / "docs/results/page.md").write_text("another page that a verb wrote")
    (folder / "new.txt").write_text("git does not know it")
    assert bench_report.uncommitted(inside) == []
    (folder / "code.py").write_text("2")
    git("rm", "other.py")
    (folder / "docs/page.md").write_text("2")
    assert sorted(bench_report.uncommitted(inside)) == ["code.py", "docs/page.md", "other.py"]


def test_outside_of_a_repository_nothing_differs(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert bench_report.uncommitted(str(tmp_path)) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench_report.uncommitted(str(tmp_path)) == []
    assert bench_report.commit() == ""


def test_the_commit_says_whether_the_sources_differ(monkeypatch):
    monkeypatch.setattr(bench_report, "_git", lambda *_: "0123456789\n")
    monkeypatch.setattr(bench_report, "uncommitted", list)
    assert bench_report.commit() == ", commit 0123456789"
    monkeypatch.setattr(bench_report, "uncommitted", lambda: ["code.py"])
    assert bench_report.commit() == ", commit 0123456789-dirty"


def test_a_page_has_a_head_and_the_lines(monkeypatch, tmp_path):
    monkeypatch.setattr(result_page, "machine", lambda _: {"system": "some"})
    text = result_page.result_page("things", "./dev x", ["| a |"], explanation="Why.", seconds=1234)
    path = tmp_path / "page.md"
    result_page.write_page(str(path), text)
    assert path.read_text() == (
        "# Measured: things\n\n"
        "This page was written by the command below; nothing in it was typed by hand.\n\n"
        "    ./dev x\n\n- system: some\n- took: 1,234 seconds\n\nWhy.\n\n| a |\n"
    )
    assert "took" not in result_page.result_page("things", "x", [], explanation="")


def double(number):
    if number == 99:
        raise ValueError("not that one")
    return 2 * number


def test_pieces_come_back_in_order_until_it_is_over():
    pieces = ((number,) for number in range(8))
    assert list(do_pieces(double, pieces, 2, lambda: True)) == [0, 2, 4, 6, 8, 10, 12, 14]
    found = []
    for done in do_pieces(double, ((number,) for number in range(50)), 1, lambda: len(found) < 3):
        found.append(done)
    assert found[:3] == [0, 2, 4]
    assert len(found) < 8
    assert list(do_pieces(double, iter([(1,)]), 1, lambda: False)) == []
    with pytest.raises(ValueError, match="not that one"):
        list(do_pieces(double, [(99,)], 1, lambda: True))
