"""Rule: the examples in docstrings show what the code does."""

import doctest
import importlib

import pytest

from tools import tree

MODULES = [
    ".".join(path.relative_to(tree.ROOT / "src").with_suffix("").parts)
    for path in tree.files(".py", under="src")
    if path.name != "__main__.py" and ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert tried, f"{name}: the example is in no docstring that doctest sees"
    assert not failed, f"{name}: mend the example, or the code"
