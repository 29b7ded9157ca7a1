"""Rule: a relative link in a document leads to a file of this repository."""

import re
from pathlib import Path

from tools import tree

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def test_each_relative_link_resolves():
    faults = []
    for path in tree.files(".md"):
        for target in LINK.findall(CODE.sub("", path.read_text())):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            file = Path(path.parent, target.split("#")[0])
            if not file.exists():
                faults.append(f"{tree.shown(path)}: no such file: {target}; mend the link")
    assert not faults, "\n".join(faults)
