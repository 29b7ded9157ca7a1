"""Rule: what a document tells a reader to type works.

The examples of README run in order in an empty folder: blocks marked `pycon` as doctests, lines of
`sh` blocks that begin with `holdfast` as commands, which must succeed. `./dev` in any document
names a verb.
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


def blocks(language):
    text = (tree.ROOT / "README.md").read_text()
    return [content for found, content in BLOCK.findall(text) if found == language]


def verbs():
    source = (tree.ROOT / "dev").read_text()
    table = source[source.index("\nVERBS") : source.index("\ndef usage")]
    return set(re.findall(r'^    "(\w+)":', table, re.MULTILINE))


def test_the_examples_of_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(
        "\n".join(blocks("pycon")), {}, "README.md", "README.md", 0
    )
    assert examples.examples
    result = doctest.DocTestRunner().run(examples)
    assert not result.failed, "mend the examples of README.md, or the code"
    for line in "\n".join(blocks("sh")).splitlines():
        if line.startswith("holdfast "):
            run_command(line, tmp_path)


def run_command(line, folder):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *shlex.split(line)[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(tree.ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"README.md: {line!r} failed:\n{done.stdout}{done.stderr}"


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
