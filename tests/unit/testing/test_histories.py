"""The verb `histories`: what it prints, keeps, and returns."""

import pytest

from holdfast.testing import histories, result_page
from holdfast.testing.anomaly import Report
from holdfast.testing.broken_engines import FAULTS, broken_history
from holdfast.testing.history import write_history

FEW = ["--runs", "2", "--serial", "20", "--right", "1", "--slices", "0", "--small", "0.05"]


@pytest.fixture(autouse=True)
def two_faults(monkeypatch):
    monkeypatch.setattr(
        histories, "FAULTS", {name: FAULTS[name] for name in ("dirty read", "phantom")}
    )


def test_it_finds_what_is_broken_and_blames_nothing_else(capsys):
    assert histories.main(FEW) == 0
    printed = capsys.readouterr().out
    assert "| dirty read | append | 2 | 2 |" in printed
    assert "| phantom | rmw | 2 | 2 |" in printed
    assert "| one client after the other | rmw | 10 | 0 |" in printed
    assert "0 histories were misjudged" in printed


def test_what_was_missed_is_counted_and_kept_to_be_judged_again(monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(histories, "judge", lambda history: Report())
        assert histories.main([*FEW, "--keep", str(tmp_path)]) == 1
    kept = tmp_path / "dirty-read-append-1.jsonl"
    assert kept.exists()
    capsys.readouterr()
    assert histories.main(["--check", str(kept)]) == 1
    assert "G1a" in capsys.readouterr().out


def test_a_false_alarm_is_counted(monkeypatch, capsys):
    def blame(history):
        report = Report()
        report.add("G0", (1, 2), "")
        return report

    monkeypatch.setattr(histories, "judge", blame)
    assert histories.main(FEW) == 1
    assert "| one client after the other | append | 10 | 10 |" in capsys.readouterr().out


def test_a_history_without_anomaly_is_told_so(tmp_path, capsys):
    history, _ = broken_history("dirty read", "append", 1)
    good = history._replace(transactions=[])
    path = tmp_path / "good.jsonl"
    with path.open("w") as file:
        write_history(file, good)
    assert histories.main(["--check", str(path)]) == 0
    assert capsys.readouterr().out == "no anomaly\n"


def test_one_report_is_shown(capsys):
    assert histories.main(["--show", "phantom", "--kind", "rmw"]) == 1
    assert "no serial order (forbidden from serializable on)" in capsys.readouterr().out


def test_the_page_has_the_command_and_the_tables(monkeypatch, tmp_path):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result_page, "uncommitted", list)
    assert histories.main([*FEW, "--write"]) == 0
    text = (tmp_path / histories.PAGE).read_text()
    assert f"    ./dev histories {' '.join(FEW)} --write\n" in text
    assert "| all |  | 8 | 8 |  |  |" in text
    assert "## Right models" in text
