"""Running the command inside the test and in a process of its own."""

import os
import subprocess
import sys

import pytest

from holdfast.cli import main


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def holdfast(capfdbinary):
    """Run a command line in this process."""

    def run(*arguments):
        capfdbinary.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return Result(status, out.decode("utf-8", "surrogateescape"), err.decode())

    return run


@pytest.fixture
def start(root):
    """Start a command line in a process of its own."""

    def run(*arguments, **options):
        return subprocess.Popen(
            [sys.executable, "-m", "holdfast", *map(str, arguments)],
            env=options.pop("env", os.environ) | {"PYTHONPATH": str(root / "src")},
            **options,
        )

    return run


@pytest.fixture
def database(tmp_path):
    """Where a test's database goes; it does not exist yet."""
    return tmp_path / "db.hf"
