"""Rule: work that is left carries the number of its issue, as in TODO(#123)."""

import re

from tools import tree

MARK = "TO" + "DO"
OPEN = re.compile(rf"\b({MARK}|FIX" + r"ME|XX" + r"X)\b(?!\(#\d+\))")


def test_work_that_is_left_names_its_issue():
    faults = [
        f"{tree.shown(path)}:{number}: do it, or write {MARK}(#number of the issue): {line.strip()}"
        for path in tree.files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if OPEN.search(line)
    ]
    assert not faults, "\n".join(faults)
