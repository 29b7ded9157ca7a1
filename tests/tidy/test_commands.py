"""Rule: what a document tells a reader to type works.

The examples of README and of the guides run in an empty folder: blocks marked `pycon` in order as
doctests, then the lines of `sh` blocks that begin with `holdfast` as commands, which must succeed.
Pages with `console` blocks show output, and tests/cli/test_guide.py compares it. `./dev` in any
document names a verb.
"""

import doctest
import os
import re
import shlex
import subprocess
import sys

import pytest

from tools import tree

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = "import sys; from holdfast.cli import main; sys.exit(main())"


GUIDES = [
    tree.ROOT / "README.md",
    *(
        path
        for folder in ("docs/guide", "docs/ops")
        for path in tree.files(".md", under=folder)
        if "```console\n" not in path.read_text()
    ),
]


def blocks(path, language):
    return [content for found, content in BLOCK.findall(path.read_text()) if found == language]


def verbs():
    source = (tree.ROOT / "dev").read_text()
    table = source[source.index("\nVERBS") : source.index("\ndef usage")]
    return set(re.findall(r'^    "(\w+)":', table, re.MULTILINE))


@pytest.mark.parametrize("path", GUIDES, ids=tree.shown)
def test_the_examples_of_a_guide_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = tree.shown(path)
    examples = doctest.DocTestParser().get_doctest(
        "\n".join(blocks(path, "pycon")), {}, name, name, 0
    )
    assert examples.examples or blocks(path, "console")  # those run in tests/cli/test_guide.py
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert not result.failed, f"mend the examples of {name}, or the code"
    for line in "\n".join(blocks(path, "sh")).splitlines():
        if line.startswith("holdfast "):
            run_command(name, line, tmp_path)


def run_command(name, line, folder):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *shlex.split(line)[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(tree.ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {line!r} failed:\n{done.stdout}{done.stderr}"


def test_documents_name_only_verbs_that_exist():
    known = verbs()
    assert {"test", "check", "demo", "build"} <= known
    faults = [
        f"{tree.shown(path)}: ./dev has no verb {verb!r}; it has {', '.join(sorted(known))}"
        for path in tree.files(".md")
        for verb in re.findall(r"\./dev (\w+)", path.read_text())
        if verb not in known
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_an_unknown_verb_lists_the_verbs_and_is_wrong_usage(arguments):
    done = subprocess.run(
        [sys.executable, "dev", *arguments],
        cwd=tree.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    for verb in verbs():
        assert f"  {verb} " in done.stderr
