"""Rule: every text file is plain ASCII, ends with a newline and has no trailing blanks."""

from tools import tree


def test_every_file_is_ascii_and_ends_with_a_newline():
    faults = []
    for path in tree.files():
        content = path.read_bytes()
        for number, line in enumerate(content.split(b"\n"), 1):
            where = f"{tree.shown(path)}:{number}"
            if not line.isascii():
                faults.append(f"{where}: write it in ASCII: {line.decode('utf-8', 'replace')!r}")
            if line != line.rstrip():
                faults.append(f"{where}: remove the blanks at the end of the line")
        if content and not content.endswith(b"\n"):
            faults.append(f"{tree.shown(path)}: end the last line with a newline")
    assert not faults, "\n".join(faults)
