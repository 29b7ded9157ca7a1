"""Rule: every coverage mark in the code is named by a test that saw it."""

import re

from tools import tree

MARK = re.compile(r"""\bmark\(\s*["']([^"']+)["']""")


def test_every_mark_is_named_by_a_test():
    tests = "\n".join(path.read_text() for path in tree.files(".py", under="tests"))
    faults = []
    for path in tree.files(".py", ".pyx", under="src"):
        for name in MARK.findall(path.read_text()):
            if f'"{name}"' not in tests:
                faults.append(
                    f"{tree.shown(path)}: no test names the mark {name}; write one that brings the "
                    f'situation about and asserts that "{name}" is in marks_seen()'
                )
    assert not faults, "\n".join(faults)
