"""Rule: nothing in the repository names a folder of one machine."""

import re

from tools import tree

# In parts, so that this file does not name one.
ROOTS = ("work", "root", "home", "Users")
FOLDER = re.compile(rf"(?<![\w.~}}])/({'|'.join(ROOTS)})/")


def test_no_file_names_a_folder_of_one_machine():
    faults = [
        f"{tree.shown(path)}:{number}: write a path relative to the project's root: {line.strip()}"
        for path in tree.files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if FOLDER.search(line)
    ]
    assert not faults, "\n".join(faults)
