"""Rule: every tool is pinned to one version, so that each machine runs the same ones."""

import re

from tools import tree

PIN = re.compile(r"^[\w.-]+==[\w.]+(; python_version < \"[\d.]+\")?$")


def test_every_requirement_is_pinned():
    faults = [
        f"{tree.shown(path)}:{number}: write name==version, not {line!r}"
        for path in tree.files(".txt", under="requirements")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if not line.startswith("#") and not PIN.match(line)
    ]
    assert not faults, "\n".join(faults)
