"""A slice of every fuzz target: its corpus, then mutations with a fixed seed.

A run is a function of corpus and seed, so a failure here replays; `./dev fuzz` goes on for longer.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from holdfast.testing import fuzz, fuzz_record, result_page
from holdfast.testing.fuzz_oracle import Finding, Outcome, agreed, attempt
from holdfast.testing.fuzz_run import Fuzzer, Limits, Scratch

SEED = 20261122
EXECUTIONS = {
    "varint": 1000, "lz4": 1500, "page": 1200, "tuple": 2000, "entries": 800, "filter": 1000,
    "table": 200, "payload": 500, "segment": 150, "edit": 1000, "manifest": 400, "settings": 800,
    "csv": 1000, "folder": 40, "live": 600, "operand": 600, "sealed": 300,
    "salvaged-log": 60, "salvaged-manifest": 300, "salvaged-table": 300,
}  # fmt: skip


def fuzzer(name, root, **kept):
    target = fuzz.TARGETS[name]
    corpus = fuzz.read_corpus(str(root / "fuzz"), target)
    # The machine of a test run is busy: only what is far too slow counts.
    return Fuzzer(target, corpus, SEED, Limits(slow_seconds=30.0, traced_every=100), **kept)


def test_every_target_has_a_slice():
    assert set(EXECUTIONS) == set(fuzz.TARGETS)


@pytest.mark.parametrize("name", EXECUTIONS)
def test_nothing_is_found_in_the_slice_of(name, root):
    run = fuzzer(name, root)
    run.run(executions=len(run.corpus) + EXECUTIONS[name])
    found = [
        f"{fault.signature}\n{fault.data[:400].hex()}\n{fault.trace}"
        for fault in run.faults.values()
    ]
    assert not found, "\n".join(found)
    assert run.reach.count > 10, "the search is not guided: no line of the decoder was seen"


@pytest.mark.parametrize("name", ["lz4", "edit"])
def test_a_run_with_the_same_seed_is_the_same_run(name, root):
    runs = [fuzzer(name, root) for _ in range(2)]
    for run in runs:
        run.run(executions=len(run.corpus) + 60)
    assert runs[0].digest == runs[1].digest
    assert runs[0].kept == runs[1].kept


def test_targets_side_by_side_find_what_they_find_one_by_one(tmp_path, capfd):
    """`--jobs` says how fast a run is, not what it executes."""
    told = []
    for jobs in ("1", "3"):
        arguments = ["lz4", "edit", "operand", "--executions", "90", "--jobs", jobs]
        assert fuzz.main([*arguments, "--corpus", str(tmp_path)]) == 0
        lines = capfd.readouterr().out.splitlines()
        told.append(sorted(re.sub(r" *[0-9]+/s", "", line) for line in lines if "digest" in line))
        assert [line.split()[0] for line in lines[-4:]] == ["lz4", "edit", "operand", "together"]
    assert told[0] == told[1]
    assert len(told[0]) == 3


class Broken:
    """A target that fails for inputs with a certain byte."""

    name = "broken"
    traced = ()

    def seeds(self):
        return [b"abcdefgh" * 8]

    def mutate(self, rng, data, other):
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]

    def run(self, data):
        if b"!" in data:
            raise KeyError("undocumented")
        if b"?" in data:
            bytearray(1 << 20)
        return [0]

    def memory_max(self, data):
        return 1 << 16


def test_a_finding_is_kept_counted_and_shrunk():
    run = Fuzzer(Broken(), [b"abcdefgh" * 8])
    run.run(executions=3000)
    kinds = {fault.signature.split()[0]: fault for fault in run.faults.values()}
    assert kinds["KeyError"].count > 1
    assert run.shrink(kinds["KeyError"]) == b"!"


def test_memory_beyond_the_limit_is_a_finding():
    run = Fuzzer(Broken(), [b"?"], limits=Limits(measured_every=1))
    run.run(executions=1)
    (fault,) = run.faults.values()
    assert "memory" in fault.signature


def test_time_beyond_the_limit_is_a_finding():
    run = Fuzzer(Broken(), [b"a"], limits=Limits(slow_seconds=-1.0))
    run.run(executions=1)
    (fault,) = run.faults.values()
    assert "slow" in fault.signature


def test_twins_that_differ_are_a_finding():
    one = attempt(lambda: int("x"), ValueError)
    assert agreed("int", [one, one]) == one
    with pytest.raises(Finding, match="the twins differ"):
        agreed("int", [one, Outcome(value=3)])


def test_the_input_that_kills_a_process_survives_it(tmp_path):
    path = tmp_path / "held"
    path.write_bytes(b"")
    Scratch(str(path)).hold(b"the last one")
    assert Scratch.held(str(path)) == b"the last one"


def command(root, *arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "holdfast.testing.fuzz", *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src")} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_plain_twins_show_a_damaged_folder_as_compiled_ones_do(root, tmp_path):
    """Whole databases run one kind of twins at a time: the digests of two runs are compared."""
    arguments = ["folder", "--executions", "25", "--corpus", str(tmp_path)]
    digests = []
    for plain in ("0", "1"):
        done = command(root, *arguments, HOLDFAST_PURE=plain)
        assert done.returncode == 0, done.stdout + done.stderr
        digests.append(re.search(r"digest (\w+)", done.stdout)[1])
    assert digests[0] == digests[1]


def test_the_command_refuses_what_it_does_not_know(root):
    done = command(root, "nonsense")
    assert done.returncode == 2
    assert "there is no target nonsense" in done.stderr


def test_executions_are_shared_and_shown_in_a_table(tmp_path, capfd):
    counts = fuzz.shared(list(fuzz.TARGETS), 10_000)
    assert 9_900 <= sum(counts.values()) <= 10_000
    assert counts["folder"] < counts["table"] < counts["varint"]
    assert fuzz.shared(["folder"], 25) == {"folder": 25}
    arguments = ["varint", "folder", "--executions", "400", "--corpus", str(tmp_path)]
    assert fuzz.main(arguments) == 0
    rows = capfd.readouterr().out.splitlines()[-4:]
    assert [row.split()[0] for row in rows] == ["target", "varint", "folder", "together"]
    assert [row.split()[1] for row in rows[1:]] == ["384", "15", "399"]


def test_what_targets_did_is_added_up_over_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("docs/results")
    monkeypatch.setattr(result_page, "uncommitted", list)
    monkeypatch.setattr(fuzz, "commit_name", lambda: "abc")
    arguments = ["lz4", "tuple", "--corpus", str(tmp_path), "--write"]
    for seed in ("1", "2", "2"):
        assert fuzz.main([*arguments, "--executions", "80", "--seed", seed]) == 0
    assert fuzz.main([*arguments[1:], "--executions", "30", "--seed", "9"]) == 0
    entries = json.loads((tmp_path / fuzz_record.RECORD).read_text())
    assert len(entries) == 5
    page = (tmp_path / fuzz_record.PAGE).read_text()
    assert "| lz4 | 2 | 80 |" in page
    assert "| tuple | 3 | 110 |" in page
    assert "| together | 5 | 190 |" in page
    again = "| `./dev fuzz lz4 tuple --executions 80 --seed 2 --write` | abc | 2 | 80 | 0 |"
    assert page.count(again) == 1
    assert page.splitlines()[-1].startswith("| `./dev fuzz tuple --executions 30 --seed 9")


def test_a_record_tells_of_findings_and_of_the_last_run():
    made = {"target": "page", "commit": "abc", "python": "3.11", "seconds": 2.0}
    entries = [
        fuzz_record.Entry(seed=1, command="./dev fuzz", executions=1000, findings=3, **made),
        fuzz_record.Entry(seed=2, command="./dev fuzz", executions=3000, findings=0, **made),
    ]
    page = fuzz_record.page(entries)
    assert "| page | 2 | 4,000 | 4 | 1,000 | 3 | 0 |" in page
    assert "| together | 2 | 4,000 | 4 | 1,000 | 3 | - |" in page


def test_a_target_whose_process_ended_counts_as_a_finding():
    shown = fuzz.table({"page": [1000, 2.0, 7, 0], "lz4": None}).splitlines()
    assert shown[2] == "lz4        its process ended"
    assert shown[3].split() == ["together", "1,000", "2.0", "500", "1"]
