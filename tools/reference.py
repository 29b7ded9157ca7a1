"""Write the reference pages that are generated from code: settings and errors.

`python -m tools.reference` writes them; with `--check` it fails when one is out of date.
"""

import dataclasses
import sys
from pathlib import Path

from holdfast.base import DatabaseSettings, KeyspaceSettings, errors

ROOT = Path(__file__).resolve().parent.parent
NOTE = "This page is generated from `{source}` by `./dev docs`; a test compares it with the code.\n"
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def readable(name: str, value: object) -> str:
    """Return a setting's value as a person writes it: sizes in binary units."""
    if not isinstance(value, int) or not name.endswith(("_bytes", "_bytes_max")):
        return str(value)
    for unit, sign in UNITS:
        if value >= unit and value % unit == 0:
            return f"{value // unit} {sign}"
    return f"{value} B"


def settings_table(kind: type[DatabaseSettings | KeyspaceSettings]) -> str:
    """Return the table of one class of settings."""
    lines = ["| setting | default | range | later | meaning |", "|---|---|---|---|---|"]
    for entry in dataclasses.fields(kind):
        facts = entry.metadata
        default = readable(entry.name, entry.default)
        if entry.default is dataclasses.MISSING:
            default = "the defaults below"
        span = ""
        if entry.type == "int":
            lower, upper = facts["lower"], facts["upper"]
            span = f"{readable(entry.name, lower)} to {readable(entry.name, upper)}"
        later = "fixed" if facts["fixed"] else "may change"
        lines.append(f"| `{entry.name}` | {default} | {span} | {later} | {facts['doc']} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    return (
        "# Settings\n\n"
        + NOTE.format(source="src/holdfast/base/settings.py")
        + "\nSettings are frozen, validated when they are made, and kept as text in the manifest.\n"
        "A value outside its range is a `LimitError`, a value of another type a `TypeError`.\n"
        f"\n## DatabaseSettings\n\n{DatabaseSettings.__doc__}\n\n{settings_table(DatabaseSettings)}"
        f"\n## KeyspaceSettings\n\n{KeyspaceSettings.__doc__}\n"
        "They are those that were given last: of the default keyspace to an open, of any one to "
        "`db.keyspace(name, settings=...)`.\n"
        f"\n{settings_table(KeyspaceSettings)}"
    )


def drawing() -> str:
    """Return the tree as it is drawn at the top of base/errors.py."""
    text = errors.__doc__ or ""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    return "\n".join(lines)


def error_section(kind: type[Exception]) -> str:
    """Return the section of one error."""
    bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
    lines = [line.removeprefix("    ") for line in (kind.__doc__ or "").strip().splitlines()]
    return f"## {kind.__name__}\n\nIs a: {bases}.\n\n" + "\n".join(lines) + "\n"


def errors_page() -> str:
    """Return docs/reference/errors.md."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    sections = "\n".join(error_section(kind) for kind in kinds)
    return (
        "# Errors\n\n"
        + NOTE.format(source="src/holdfast/base/errors.py")
        + f"\n```text\n{drawing()}\n```\n\n{sections}"
    )


def pages() -> dict[Path, str]:
    """Return every generated page with the content it should have."""
    folder = ROOT / "docs" / "reference"
    return {folder / "settings.md": settings_page(), folder / "errors.md": errors_page()}


def main(arguments: list[str]) -> int:
    """Entry point."""
    status = 0
    for path, content in pages().items():
        current = path.read_text(encoding="ascii") if path.exists() else ""
        if current == content:
            continue
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is out of date; run ./dev docs", file=sys.stderr)
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="ascii")
            print(f"wrote {path.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
