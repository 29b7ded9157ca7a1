"""The power is cut at every operation of short programs: what is read back is a prefix that holds
all that was synced.

A prefix of what was tried, in order, without holes; everything below the durable mark; nothing that
was refused.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from holdfast.base import PUT, CorruptionError, DiskFullError
from holdfast.env import CRASH_CLASSES, FaultEnv, FaultRule, SimCrash, SimEnv, crash_states
from holdfast.wal import RecordBuffer
from tests.unit.wal.logs import FOLDER, Log, contents, records


class Run:
    """A program over a log on a machine whose power may go."""

    def __init__(
        self, program: Callable[[Run], None], seed: int, profile: str = "posix-min", **named: Any
    ) -> None:
        self.sim = SimEnv(seed, profile)
        self.sim.make_dir(FOLDER, site="test")
        self.sim.sync_dir("/", site="test")
        self.faults = FaultEnv(self.sim)
        self.program = program
        self.named = named
        self.log: Log | None = None
        # What a call under way is trying to add; it may or may not be there after a crash.
        self.trying: bytes | None = None

    def go(self) -> None:
        self.log = Log(self.faults, **self.named)
        self.program(self)
        self.log.writer.close()

    def append(self, *values: bytes) -> None:
        assert self.log is not None
        buffer = RecordBuffer()
        for value in values:
            buffer.append_op(PUT, 1, b"key", value)
        self.trying = buffer.payload()
        with suppress(DiskFullError):
            self.log.append(*values)
        self.trying = None

    def sync(self) -> None:
        assert self.log is not None
        self.log.writer.sync()

    def prepare(self) -> None:
        assert self.log is not None
        self.log.writer.prepare_next()

    def no_room(self, site: str, partial: int | None = None) -> None:
        self.faults.clear()
        self.faults.add(FaultRule(site=site, error=errno.ENOSPC, partial=partial))


def short(run: Run) -> None:
    run.append(b"a")
    run.sync()
    run.append(b"b" * 700)
    run.append(b"c", b"d")
    run.sync()
    run.append(b"e")
    run.append(b"f" * 600)


def rotating(run: Run) -> None:
    run.append(b"a" * 1500)
    run.append(b"b" * 1500)
    run.prepare()
    run.append(b"c" * 1500)
    run.sync()
    run.append(b"d")
    run.append(b"e" * 2900)
    run.append(b"f")
    run.sync()


def large(run: Run) -> None:
    run.append(b"a")
    run.append(b"b" * 9000)
    run.append(b"c")
    run.sync()


def full(run: Run) -> None:
    run.append(b"a")
    run.no_room("wal.record.write", partial=100)
    run.append(b"b" * 200 + bytes(400))
    run.append(b"c" * 20)
    run.no_room("wal.record.write", partial=96)
    run.append(b"d" * 3 + bytes(30))
    run.append(b"e" * 1800)
    run.append(b"e" * 1800)
    run.no_room("wal.end.write", partial=50)
    run.append(b"f" * 1800)
    run.append(b"g")
    run.sync()


def loose(run: Run) -> None:
    """Many records and few syncs, so that holes among what was never durable are common."""
    for number in range(6):
        run.append(b"%d" % number * 350, b"x")
    run.sync()
    run.prepare()
    for number in range(9):
        run.append(b"%d" % number * 300)


PROGRAMS = [short, rotating, large, full, loose]


def moments(program: Callable[[Run], None], **named: Any) -> Iterator[Run]:
    """The program cut at every operation, before it and after it, and one run to its end."""
    whole = Run(program, 1, **named)
    first = whole.sim.op_count
    whole.go()
    for index in range(first, whole.sim.op_count):
        for after in (False, True):
            run = Run(program, 1, **named)
            run.sim.crash_at(index, after=after)
            with pytest.raises(SimCrash):
                run.go()
            yield run
    yield whole


def check(run: Run, env: SimEnv, classes: Any) -> int:
    if run.log is None or not hasattr(run.log, "writer"):
        # The first segment was not ready, so no manifest names it.
        return 0
    log = run.log
    written = [payload for _, _, payload in log.written]
    durable = sum(lsn <= log.writer.durable_lsn for lsn, _, _ in log.written)
    allowed = [written] if run.trying is None else [written, [*written, run.trying]]
    count = 0
    for state in crash_states(env, classes):
        count += 1
        for known in (0, log.writer.durable_lsn):
            found = contents(state.build(), log.first, alignment=log.alignment, durable_lsn=known)
            payloads = [payload for _, _, payload in records(found)]
            message = f"{state.name}\n{state.explain()}"
            assert any(payloads == tried[: len(payloads)] for tried in allowed), message
            assert len(payloads) >= durable, message
            assert found.complete, message
    return count


@pytest.mark.parametrize(
    ("profile", "alignment"),
    [("posix-min", 8), ("posix-min", 512), ("no-psow", 512), ("no-psow-4k", 4096)],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_crash_state_reads_back_as_a_prefix_with_all_that_was_synced(
    program: Callable[[Run], None], profile: str, alignment: int
) -> None:
    """Also on disks without powersafe overwrite, where records and links have sectors to
    themselves.
    """
    named = {"profile": profile, "alignment": alignment, "segment_bytes": 2 * alignment + 8176}
    states = sum(check(run, run.sim, CRASH_CLASSES) for run in moments(program, **named))
    assert states > 50


@pytest.mark.parametrize("alignment", [8, 256])
def test_records_that_share_a_sector_are_not_safe_without_powersafe_overwrite(
    alignment: int,
) -> None:
    """What the alignment is for: with less than a sector the crashes above are not all survived."""
    with pytest.raises((CorruptionError, AssertionError)):
        for run in moments(short, profile="no-psow", alignment=alignment):
            check(run, run.sim, CRASH_CLASSES)


def test_every_subset_of_a_few_pending_writes_reads_back_as_a_prefix() -> None:
    seen = 0
    for index in range(22, 32):
        run = Run(loose, 5)
        run.sim.crash_at(index)
        with suppress(SimCrash):
            run.go()
        seen += check(run, run.sim, ["power-set"])
    assert seen > 200


@pytest.mark.parametrize("index", range(8, 31, 3))
def test_a_second_life_goes_on_behind_what_the_first_left(index: int) -> None:
    """The next process reads, starts a log of its own, and is cut in turn."""
    first = Run(loose, 3)
    first.sim.crash_at(index, after=True)
    with pytest.raises(SimCrash):
        first.go()
    assert first.log is not None
    durable = first.log.writer.durable_lsn
    for state in crash_states(first.sim, ["none", "all", "prefix", "drop-one"]):
        env = state.build()
        found = contents(env, 1, durable_lsn=durable)
        old = records(found)
        number = max(found.segments + found.orphans) + 1
        second = Log(env, lsn_first=found.last_lsn + 1, number=number)
        second.seq = found.last_seq + 1
        # Until the manifest names the new segment the old log must read the same.
        again = contents(env, 1, durable_lsn=durable)
        assert records(again) == old
        assert number in again.orphans
        second.append(b"second life")
        second.writer.sync()
        env.cut_power()
        for later in crash_states(env, ["none", "all"]):
            last = contents(later.build(), number, durable_lsn=second.writer.durable_lsn)
            assert records(last) == second.written
