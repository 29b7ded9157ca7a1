"""Rule: a function has at most 70 lines, a file at most 800.

A ratchet: lengths.toml lists what is longer today. What is listed may shrink, not grow, and leaves
the list when it fits. `python -m tools.lengths` prints the table as it would be now.
"""

import tomllib

from tools import lengths, tree


def listed():
    with open(tree.ROOT / "tests" / "tidy" / "lengths.toml", "rb") as file:
        return tomllib.load(file)


def compare(now, before, limit, advice):
    faults = [
        f"{name} has {count} lines, the limit is {before.get(name, limit)}: {advice}"
        for name, count in now.items()
        if count > before.get(name, limit)
    ]
    faults += [
        f"{name}: take it off tests/tidy/lengths.toml, it has {now.get(name, 0)} lines"
        for name in before
        if now.get(name, 0) <= limit
    ]
    assert not faults, "\n".join(faults)


def test_functions_are_short():
    advice = "give its parts names of their own"
    compare(lengths.functions(), listed()["functions"], lengths.FUNCTION_LINES, advice)


def test_files_are_short():
    advice = "split it by noun"
    compare(lengths.files(), listed()["files"], lengths.FILE_LINES, advice)
