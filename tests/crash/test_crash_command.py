"""The verb `./dev crash`: what it prints and how it ends."""

import pytest

from holdfast.testing.crash_command import main
from holdfast.testing.workload import CANONICAL, SECTORS


def test_the_workloads_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [*CANONICAL, *SECTORS] == [line.split()[0] for line in lines]


def test_one_state_is_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    path = "22:all/9:all"
    assert 0 == main(["--workload", "sync_puts", "--state", path])
    printed = capsys.readouterr().out
    assert "life 1 ends after 22 operations" in printed
    assert "life 2 ends after 9 operations" in printed
    assert printed.endswith("passed\n")


def test_a_workload_runs_on_the_disk_that_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--workload", "sectors_512", "--depth", "1", "--classes", "collateral"]
    assert 0 == main(common)
    assert "states        0" not in capsys.readouterr().out
    assert 0 == main([*common, "--profile", "posix-min"])
    assert "states        0" in capsys.readouterr().out


def test_two_processes_share_the_states(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["--workload", "sync_puts", "--depth", "1", "--classes", "none,all,prefix"])
    printed = capsys.readouterr().out
    assert "failures  0  complete" in printed
    assert "seed 0    sync_puts" in printed


def test_a_budget_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["--workload", "mixed", "--budget", "1", "--nested-sample", "1"])
    assert "sampled" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--classes", "everything"],
        ["--state", "1:all"],
        ["--workload", "nothing"],
        ["--workload", "flush", "--state", "1:sideways"],
        ["--workload", "flush", "--state", "99999:all"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert 2 == caught.value.code
    assert "usage: ./dev crash" in capsys.readouterr().err
