"""Writes the table of litmus tests in docs/internals/disk-model.md anew: `python -m
tests.unit.env.litmus_page`.
"""

from pathlib import Path

import tests.unit.env.litmus_programs  # noqa: F401  it adds the tests
from holdfast.env import PROFILES
from tests.unit.env.litmus import LITMUS

PAGE = Path(__file__).parents[3] / "docs" / "internals" / "disk-model.md"
HEADING = "## Litmus tests\n"
INTRODUCTION = """\
Each test is a sentence and a program that ends with a power cut; per profile, everything that was
found afterwards. The suite fails when anything else is found.
A file is named by its letters, each of them 512 bytes: `A` for bytes that are all `A`, `0` for
zeros, `*` for anything else. A letter is one sector where nothing else is said.
Offsets and sizes count letters. `durable f = A` creates a file, writes it, and syncs it and its
folder. The liar is listed where it has a rule of its own; in all other tests it may leave what
`posix-min` leaves when the last three syncs are not called.
"""


def section() -> str:
    """Return the part of the page that is generated: every test with what was found."""
    lines = [HEADING, INTRODUCTION]
    for number, test in enumerate(LITMUS, 1):
        groups: dict[tuple[str, ...], list[str]] = {}
        for profile in PROFILES:
            if test.rule(profile) is not None:
                outcomes = tuple(sorted(test.outcomes(profile), key=lambda name: (len(name), name)))
                groups.setdefault(outcomes, []).append(profile)
        sector = (
            f" A sector holds {test.sector_letters} letters." if test.sector_letters > 1 else ""
        )
        sentence = test.sentence[0].upper() + test.sentence[1:]
        lines.append(f"{number}. {sentence}: `{test.steps()}`.{sector}\n")
        for outcomes, profiles in groups.items():
            names = ", ".join(f"`{name or 'nothing'}`" for name in outcomes)
            lines.append(f"    - {', '.join(profiles)}: {names}")
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """Return the page as it should be."""
    return PAGE.read_text(encoding="ascii").partition(HEADING)[0] + section()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="ascii")
