"""The examples of docs/guide work as they stand there.

Each page runs in an empty folder of its own, in order: blocks marked `console` line by line in a
shell, whose output must be the one shown (... stands for anything); blocks marked `pycon` as
doctests.
"""

import doctest
import os
import re
import subprocess
import sys

import pytest

BLOCK = re.compile(r"^```(console|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("first-steps.md", "command-line.md", "encryption.md")


def check(shown, found, line):
    matches = doctest.OutputChecker().check_output(shown, found, doctest.ELLIPSIS)
    assert matches, f"{line}\nshown:\n{shown}\nfound:\n{found}"


def run_console(block, folder, environment):
    for line, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        check(shown, done.stdout, line)


@pytest.fixture
def environment(tmp_path, root):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "holdfast"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m holdfast "$@"\n')
    command.chmod(0o755)
    paths = {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
    }
    return os.environ | paths


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_the_guide_run(page, root, tmp_path, environment, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = {}
    found = BLOCK.findall((root / "docs" / "guide" / page).read_text())
    assert found
    for number, (kind, block) in enumerate(found):
        if kind == "console":
            run_console(block, folder, environment)
            continue
        examples = doctest.DocTestParser().get_doctest(block, names, f"{page}-{number}", page, 0)
        result = doctest.DocTestRunner().run(examples, clear_globs=False)
        names = examples.globs
        assert not result.failed
