"""Goal: settings and twins change how a database works and nothing of what it answers.

Method: one drawn history is run under every variant of the settings, and all reads must answer what
the model answers. Other histories are run on real files by this process and by one with the other
twins; the answers must be equal, and each must read the databases that the other left, both those
that were closed and those of a killed process.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings

from holdfast.base import PURE
from holdfast.env import SimEnv
from tests.model.histories import (
    HISTORIES,
    VARIANTS,
    Step,
    open_and_dump,
    run_all,
    run_on_database,
    run_on_model,
)

IS_DEEP = not settings.default.derandomize


@settings(max_examples=300 if IS_DEEP else 6 if PURE else 25)
@given(steps=HISTORIES)
def test_a_history_has_the_same_answers_under_all_settings(steps: list[Step]) -> None:
    expected = run_on_model(steps)
    for name, variant in VARIANTS.items():
        assert expected == run_on_database(steps, variant, SimEnv(), "/db"), name


def drawn(count: int) -> list[list[Step]]:
    """Return so many histories of some length."""
    found: list[list[Step]] = []

    @settings(max_examples=count * 4, database=None)
    @given(steps=HISTORIES)
    def draw(steps: list[Step]) -> None:
        found.append(steps)

    draw()
    return sorted(found, key=len)[-count:]


def test_both_twins_answer_the_same_and_read_what_the_other_wrote(
    tmp_path: Path, root: Path
) -> None:
    histories = drawn(60 if IS_DEEP else len(VARIANTS))
    (tmp_path / "histories").write_text(repr(histories), encoding="ascii")
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    mine = run_all(histories, str(tmp_path / "mine"))
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.model.histories",
            str(tmp_path / "histories"),
            str(tmp_path / "theirs"),
            str(tmp_path / "mine"),
        ],
        cwd=root,
        env={
            **os.environ,
            "HOLDFAST_PURE": "" if PURE else "1",
            "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ended.returncode, ended.stderr
    theirs, their_dumps = ast.literal_eval(ended.stdout)
    for number, steps in enumerate(histories):
        expected = run_on_model(steps)
        assert expected == mine[number]
        assert expected == theirs[number]
        # The other twins read what these wrote, and these read what the others wrote.
        assert (expected[1], expected[1]) == their_dumps[number]
        assert expected[1] == open_and_dump(str(tmp_path / "theirs" / f"{number}"))
        assert expected[1] == open_and_dump(str(tmp_path / "theirs" / f"{number}.killed"))
