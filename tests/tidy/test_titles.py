"""Rule: a document begins with its title, `# Title`, and has no second one."""

from tools import tree


def titles(text):
    """The lines that are titles, with their numbers; code blocks do not count."""
    found = []
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif line.startswith("# ") and not in_code:
            found.append(number)
    return found


def test_each_document_has_one_title_and_it_stands_first():
    faults = [
        f"{tree.shown(path)}: write one '# Title', in the first line; titles are in lines {found}"
        for path in tree.files(".md")
        if (found := titles(path.read_text())) != [1]
    ]
    assert not faults, "\n".join(faults)
