"""The mutator: what it changes, how it names it, and that a forked pytest tells killed from alive.

The runs stand on a codec file of the package and on its own suite, since that is what a mutant is:
a change of real code. One mutant is killed, one is equivalent and survives.
"""

import os
import subprocess
import sys
import time

import pytest

from tools import mutate, mutate_run, tree
from tools.mutants import mutants

VARINT = tree.ROOT / "src" / "holdfast" / "codec" / "_varint_py.py"

SOURCE = '''"""A module."""

LIMIT = 5


class Box:
    """A class."""

    size: int = 0

    def holds(self, count: int) -> bool:
        """Return whether so many fit."""
        if count < 0 or not self.size:
            raise ValueError("a count of {count + 1}")
        require(count < 100, "few")
        return count + 1 <= self.size

    def grow(self) -> None:
        self.size += 2
        self.told()
'''


@pytest.fixture
def found(tmp_path):
    path = tmp_path / "box.py"
    path.write_text(SOURCE)
    return mutants(path)


def test_every_operator_finds_its_places(found):
    assert [(mutant.line, mutant.kind, mutant.name) for mutant in found] == [
        (3, "constant", "module: LIMIT = 5 -> LIMIT = 6"),
        (9, "constant", "Box: size: int = 0 -> size: int = 1"),
        (13, "and/or", "Box.holds: count < 0 or not self.size -> count < 0 and (not self.size)"),
        (
            13,
            "negation",
            "Box.holds: count < 0 or not self.size -> not (count < 0 or not self.size)",
        ),
        (13, "comparison", "Box.holds: count < 0 or not self.size -> count <= 0 or not self.size"),
        (13, "comparison", "Box.holds: count < 0 or not self.size -> count >= 0 or not self.size"),
        (13, "constant", "Box.holds: count < 0 or not self.size -> count < 1 or not self.size"),
        (14, "raise", "Box.holds: raise ValueError('a count of {count + 1}') -> removed"),
        (
            15,
            "comparison",
            "Box.holds: require(count < 100, 'few') -> require(count <= 100, 'few')",
        ),
        (
            15,
            "comparison",
            "Box.holds: require(count < 100, 'few') -> require(count >= 100, 'few')",
        ),
        (15, "constant", "Box.holds: require(count < 100, 'few') -> require(count < 101, 'few')"),
        (
            16,
            "comparison",
            "Box.holds: return count + 1 <= self.size -> return count + 1 < self.size",
        ),
        (
            16,
            "comparison",
            "Box.holds: return count + 1 <= self.size -> return count + 1 > self.size",
        ),
        (
            16,
            "arithmetic",
            "Box.holds: return count + 1 <= self.size -> return count - 1 <= self.size",
        ),
        (
            16,
            "constant",
            "Box.holds: return count + 1 <= self.size -> return count + 2 <= self.size",
        ),
        (19, "arithmetic", "Box.grow: self.size += 2 -> self.size -= 2"),
        (19, "statement", "Box.grow: self.size += 2 -> removed"),
        (19, "constant", "Box.grow: self.size += 2 -> self.size += 3"),
        (20, "statement", "Box.grow: self.told() -> removed"),
    ]


def test_a_mutant_does_what_its_name_says_and_leaves_no_trace(found):
    for mutant in found:
        space = {"require": lambda *_: None}
        exec(mutant.code(), space)
        assert (space["LIMIT"] == 6) == ("LIMIT" in mutant.name)
        box = space["Box"]()
        box.size = 3
        answer = None if mutant.kind == "raise" else box.holds(3) if "+ 1" in mutant.name else None
        assert answer is None or answer == ("count - 1" in mutant.name or "+ 1 >" in mutant.name)


def test_a_repeated_change_gets_a_number(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text("def f(a):\n    a.x += 1\n    a.x += 1\n")
    names = [mutant.name for mutant in mutants(path) if mutant.kind == "statement"]
    assert names == ["f: a.x += 1 -> removed", "f: a.x += 1 -> removed (#2)"]


def test_an_unreachable_line_is_left_alone(tmp_path):
    path = tmp_path / "never.py"
    path.write_text("def f(a):\n    a.x()  # unreachable: nobody calls it\n    a.y()\n")
    assert [mutant.line for mutant in mutants(path)] == [3]
    lines = ["def f(a):", "    if a:  # unreachable: never", "        a.x()", "    else:"]
    lines += ["        a.y()", "    a.z()", ""]
    path.write_text("\n".join(lines))
    assert [mutant.line for mutant in mutants(path)] == [5, 6]


def test_code_without_its_only_super_call_fits_the_function(tmp_path):
    """A function has a cell for the class of `super()`; a removed call must not take it away."""
    path = tmp_path / "child.py"
    source = "class Child(dict):\n    def clear(self):\n        super().clear()\n"
    path.write_text(source)
    space = {}
    exec(compile(source, str(path), "exec"), space)
    clear = space["Child"].clear
    (mutant,) = mutants(path)
    assert mutant.name == "Child.clear: super().clear() -> removed"
    clear.__code__ = mutate_run._code_of(mutant.code(), mutant)
    child = space["Child"](a=1)
    child.clear()
    assert child == {"a": 1}


@pytest.mark.parametrize(
    ("only", "verdict"),
    [
        ("encode_varint: value >= 128 -> value > 128", "killed: 1 of 1"),
        # A constant of the module, which is imported anew.
        ("module: VALUE_MAX = 2 ** 64 - 1 -> VALUE_MAX = 2 ** 64 + 1", "killed: 1 of 1"),
        # Never more than ten bytes are looked at: an eleventh shift changes nothing.
        ("zip(range(0, 65, 7)", "killed: 0 of 1"),
    ],
)
def test_a_run_tells_what_is_noticed_from_what_is_not(only, verdict):
    program = (
        "import sys; from tools import mutate; "
        "mutate.SUITES = {'codec': ()}; "
        "mutate.TWINS = {'codec': ('tests/twin/test_codec_varint.py',)}; "
        "sys.exit(mutate.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "codec/_varint_py.py", "--only", only],
        cwd=tree.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verdict in done.stdout, done.stderr
    assert done.returncode == (0 if verdict.startswith("killed: 1") else 1)
    assert (only in done.stdout) == (done.returncode == 1), "survivors are named"


def test_a_process_that_is_kept_from_running_does_not_stand_still(monkeypatch):
    """Whoever waits for ever is stopped; whoever only gets no processor time is waited for."""
    monkeypatch.setattr(mutate_run, "STILL_SECONDS", 0.3)
    monkeypatch.setattr(mutate_run, "_processor_time", lambda _: 1.0)
    asleep = mutate_run._fork(lambda: time.sleep(60) or 0)
    assert mutate_run._wait(asleep) is None
    end = time.monotonic() + 1.5

    def spin():
        while time.monotonic() < end:
            pass
        return 7

    assert os.waitstatus_to_exitcode(mutate_run._wait(mutate_run._fork(spin))) == 7


def test_every_explanation_is_that_of_a_mutant():
    names = {
        (mutate.shown(mutant), mutant.name)
        for path in mutate.files_of(mutate.ROOMS)
        for mutant in mutants(path)
    }
    stale = [key for key in mutate.explanations() if key not in names]
    assert not stale, "these changes are not tried any more: take them out of tools/survivors.toml"


def test_the_sources_on_disk_are_never_touched():
    before = VARINT.read_bytes()
    [mutant.code() for mutant in mutants(VARINT)]
    assert VARINT.read_bytes() == before
