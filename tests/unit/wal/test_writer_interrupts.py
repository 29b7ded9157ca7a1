"""`LogWriter`, interrupted: before a call of the disk, after it, and while it hides an error."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from holdfast.base import DatabasePoisonedError, marks_seen
from holdfast.env import FaultRule, SimEnv
from holdfast.wal import LogWriter
from tests.unit.wal.logs import Log, records
from tests.unit.wal.test_writer import BIG, after_a_crash, fail, faulty


class Interrupting:
    """A file whose next call of a kind is interrupted: before it, or after it and perhaps hiding
    its error.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.plan: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write_at(self, offset: int, data: Any, *, site: str) -> None:
        self._call(site, lambda: self.inner.write_at(offset, data, site=site))

    def sync(self, *, site: str) -> None:
        self._call(site, lambda: self.inner.sync(site=site))

    def write_and_sync_at(self, offset: int, data: Any, *, site: str, sync_site: str) -> None:
        self.write_at(offset, data, site=site)
        self.sync(site=sync_site)

    def _call(self, site: str, call: Any) -> None:
        when = self.plan.pop(site, "")
        if when == "before":
            raise KeyboardInterrupt
        if when == "hiding":
            try:
                raise OSError(errno.EIO, "hidden")
            finally:
                raise KeyboardInterrupt
        call()
        if when == "after":
            raise KeyboardInterrupt


class InterruptingEnv:
    def __init__(self) -> None:
        self.inner = SimEnv(1)
        self.files: list[Interrupting] = []
        self.plan: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create(self, path: str, *, site: str) -> Any:
        file = Interrupting(self.inner.create(path, site=site))
        file.plan = self.plan
        return file

    def unlink(self, path: str, *, site: str) -> None:
        when = self.plan.pop(site, "")
        if when != "before":
            self.inner.unlink(path, site=site)
        if when:
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "site",
    ["wal.record.write", "wal.record.sync", "wal.end.write", "wal.end.sync", "wal.segment.link"],
)
def test_an_interrupted_call_may_be_followed_by_others(site: str, when: str) -> None:
    log = Log(InterruptingEnv())
    for _ in range(2):
        log.append(BIG)
    log.env.plan[site] = when
    with pytest.raises(KeyboardInterrupt):
        for _ in range(4):
            log.append(BIG)
            log.writer.sync()
    assert not log.writer.poisoned
    for value in (b"a", b"b" * 3000, b"c"):
        log.append(value)
    log.writer.sync()
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_an_interrupted_way_to_the_next_segment_is_gone_to_its_end() -> None:
    """The END record names a segment that `segments` does not have yet; `settle` brings it in."""
    log = Log(InterruptingEnv())
    log.writer.settle()
    for _ in range(2):
        log.append(BIG)
    log.env.plan["wal.end.sync"] = "before"
    with pytest.raises(KeyboardInterrupt):
        for _ in range(4):
            log.append(BIG)
    log.writer.sync()
    before = log.writer.segments()
    log.writer.settle()
    assert "wal.settled" in marks_seen()
    after = log.writer.segments()
    assert [one.number for one in after[:-1]] == [one.number for one in before]
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
    log.append(b"a")
    assert after[-1].number == log.writer.segments()[-1].number


@pytest.mark.parametrize(
    "site", ["wal.record.write", "wal.record.sync", "wal.end.sync", "wal.segment.link"]
)
def test_an_interrupt_that_hides_an_error_of_the_disk_poisons(site: str) -> None:
    log = Log(InterruptingEnv())
    for _ in range(2):
        log.append(BIG)
    log.env.plan[site] = "hiding"
    with pytest.raises(KeyboardInterrupt):
        for _ in range(4):
            log.append(BIG)
            log.writer.sync()
    assert log.writer.poisoned
    with pytest.raises(DatabasePoisonedError):
        log.append()


@pytest.mark.parametrize("when", ["before", "after", "hiding"])
@pytest.mark.parametrize("site", ["wal.record.write", "wal.record.sync", "wal.record.wipe_sync"])
def test_an_interrupted_durable_append_is_taken_back(site: str, when: str) -> None:
    log = Log(InterruptingEnv())
    log.append(b"a", durable=True)
    log.env.plan[site] = when
    if site == "wal.record.wipe_sync":
        log.env.plan["wal.record.write"] = "after"
    with pytest.raises(KeyboardInterrupt):
        log.append(b"lost", durable=True)
    assert log.writer.poisoned == (when == "hiding")
    assert (log.writer.written_lsn, log.writer.durable_lsn) == (1, 1)
    if when == "hiding":
        with pytest.raises(DatabasePoisonedError):
            log.append()
        return
    for value in (b"b", b"c" * 3000):
        log.append(value, durable=True)
    for left in after_a_crash(log):
        assert records(log.read(left, durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("site", ["wal.segment.header", "wal.segment.sync"])
def test_an_interrupted_segment_is_not_used(site: str) -> None:
    log = Log(InterruptingEnv())
    log.append(BIG)
    log.env.plan[site] = "before"
    with pytest.raises(KeyboardInterrupt):
        log.writer.prepare_next()
    assert log.sim.unreturned() == ["/db/00000001.wal is open"] * 2
    assert log.writer.needs_next
    for _ in range(3):
        log.append(BIG)
    assert [segment.number for segment in log.writer.segments()] == [1, 3]
    log.writer.sync()
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_interrupted_while_it_gives_up_a_small_segment_leaves_the_next_wanted(
    when: str,
) -> None:
    log = Log(InterruptingEnv())
    log.append(BIG)
    log.writer.prepare_next()
    log.env.plan["wal.segment.unlink"] = when
    with pytest.raises(KeyboardInterrupt):
        log.append(b"x" * 100_000)
    assert log.writer.needs_next, "and it may be prepared, as no rotation is under way"
    log.append(b"y" * 100_000)
    log.writer.sync()
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("site", ["wal.record.write", "wal.record.sync"])
def test_an_error_of_the_disk_that_an_interrupt_kept_from_being_noted_poisons(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes when the error is known but not written down yet."""
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(site=site, error=errno.EIO))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LogWriter, "_poisoned_by", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append(b"lost")
            log.writer.sync()
    before = log.sim.op_count
    for call in (log.append, log.writer.sync):
        with pytest.raises(DatabasePoisonedError):
            call()
    assert log.sim.op_count == before
