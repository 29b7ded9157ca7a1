"""The harnesses find nothing on encrypted databases either: a slice of each."""

import pytest

from holdfast.testing import encrypted, torture
from holdfast.testing.crash import Options
from holdfast.testing.crash_command import main as crash
from holdfast.testing.demo import main as demo
from holdfast.testing.mutants import kill
from holdfast.testing.torture_points import errors_part, syncs_part


@pytest.fixture(autouse=True)
def with_a_key():
    encrypted.use(True)
    yield
    encrypted.use(False)


@pytest.mark.parametrize(
    "workload", ["sync_puts", "segment_rotation", "manifest_rotation", "compaction", "sectors_512"]
)
def test_power_cuts(workload, capsys):
    arguments = ["--workload", workload, "--budget", "2.5", "--jobs", "1", "--encrypted"]
    assert crash(arguments) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "part", ["errors", "syncs", "faults", "clients", "damage", "flips", "kills"]
)
def test_torture(part, tmp_path, capsys):
    arguments = [str(tmp_path), "--minutes", "0.03", "--parts", part, "--encrypted"]
    assert torture.main(arguments) == 0, capsys.readouterr().out
    assert "--encrypted" in torture.command_of(_given(arguments))


def _given(arguments):
    import argparse

    parser = argparse.ArgumentParser()
    torture.configure(parser)
    return parser.parse_args(arguments)


def test_the_part_that_a_key_changes_nothing_of_is_refused(tmp_path, capsys):
    assert torture.main([str(tmp_path), "--parts", "crash,fuzz", "--encrypted"]) == 2
    assert "run it without --encrypted" in capsys.readouterr().err


def test_all_parts_are_all_others(tmp_path, monkeypatch):
    made = []

    def run_here(names, given, wrap, report):
        made.append((names, given.parts))

    monkeypatch.setattr(torture, "run_here", run_here)
    assert torture.main([str(tmp_path), "--encrypted"]) == 0
    ((names, parts),) = made
    assert parts == ",".join(names)
    assert set(names) == set(torture.PARTS) - {"fuzz"}


@pytest.mark.parametrize(("make", "items"), [(syncs_part, ["0", "18"]), (errors_part, ["3"])])
def test_points_of_a_creation(make, items):
    """Failed syncs of the first key file among them, which an open after it must not trust."""
    part = make(1, lambda machine: machine)
    for item in items:
        part.replay(item)
    assert not part.failures


@pytest.mark.parametrize("site", [("sync", "keys.sync"), ("sync_dir", "keys.folder_sync")])
def test_without_a_sync_of_the_key_file_a_crash_loses_everything(site):
    failure = kill(site, "sync_puts", Options(depth=1))
    assert failure is not None
    assert failure.complaints


def test_the_demonstration(tmp_path, capsys):
    assert (
        demo(["--dir", str(tmp_path), "--seed", "1", "--data", str(tmp_path), "--encrypted"]) == 0
    )
    shown = capsys.readouterr().out
    assert "encrypted" in shown
    assert list((tmp_path / "demo.hf").glob("KEYS.*"))
