"""Each call of small workloads fails in each way: a part of all points, and all of them on request.

`holdfast torture --parts errors,syncs,clients` tries all of them, one after another; so does
`pytest -m deep`. Here it is a sample that goes over all workloads, ways and calls evenly.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

from holdfast.env import FaultRule
from holdfast.env.fault import FaultFile
from holdfast.testing.crash import same_machine
from holdfast.testing.mutants import without
from holdfast.testing.oracle import Wrap
from holdfast.testing.torture_points import (
    CLIENT_WAYS,
    CLIENT_WORKLOADS,
    ERROR_WAYS,
    SYNC_WAYS,
    WORKLOADS,
    PointsPart,
    Way,
    clients_part,
    errors_part,
    points_of,
    run_point,
    scattered,
    syncs_part,
)

PARTS = {"errors": errors_part, "syncs": syncs_part, "clients": clients_part}
WAYS = {"errors": ERROR_WAYS, "syncs": SYNC_WAYS, "clients": CLIENT_WAYS}
SAMPLES = {"errors": 160, "syncs": 120, "clients": 45}


def judged(part: PointsPart, count: int) -> PointsPart:
    for _ in range(count):
        part.step()
        assert not part.failures, part.failures
    return part


@pytest.mark.parametrize("name", PARTS)
def test_a_sample_of_all_points_passes(name: str) -> None:
    part = judged(PARTS[name](1, same_machine), SAMPLES[name])
    assert {way.name for way in WAYS[name]} == {way for way, what in part.runs if what == "runs"}
    assert part.figures()["points tried"] == SAMPLES[name]


@pytest.mark.deep
@pytest.mark.parametrize("name", PARTS)
def test_every_point_passes(name: str) -> None:
    part = PARTS[name](1, same_machine)
    judged(part, len(part.points()))
    assert part.figures()["points tried, percent"] == 100.0


def test_steps_visit_every_point_once() -> None:
    for count in (1, 2, 7, 1000, 4596):
        assert set(range(count)) == {scattered(index, count) for index in range(count)}


def test_points_are_all_calls_of_all_workloads() -> None:
    points = points_of(ERROR_WAYS, 1)
    assert set(WORKLOADS) == {point.work.name for point in points}
    for point in points[::50]:
        assert 1 <= point.nth <= sum(kind in point.way.kinds for kind in point.calls)


def test_an_error_that_the_engine_swallows_is_noticed() -> None:
    """The log's sync fails, and the engine is not told."""
    points = points_of(SYNC_WAYS[:1], 1, ("sync_puts",))
    found = [
        run_point(point, without(("sync", "wal.record.sync")), Random(1)).complaints
        for point in points[:20]
    ]
    assert any(found)


def test_an_engine_that_goes_on_after_a_failed_sync_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr("holdfast.engine.write_path.WritePath.poison", lambda self, cause: None)
    points = points_of(SYNC_WAYS[:1], 1, ("flush",))
    found = [run_point(point, same_machine, Random(1)).complaints for point in points]
    assert any("not poisoned" in line for complaints in found for line in complaints)


def test_a_call_that_is_never_reached_is_noticed() -> None:
    def rules(nth, times, calls):
        return [FaultRule(kind="write", nth=10_000, error=errno.EIO)]

    way = Way("never", frozenset(("write",)), rules)
    (point, *_) = points_of([way], 1, ("sync_puts",))
    assert run_point(point, same_machine, Random(1)).complaints


# --- several clients


def complaints_of_clients(way: Way, wrap: Wrap = same_machine, step: int = 3) -> list[str]:
    points = points_of([way], 1, ("clients_many",))[::step]
    assert points
    return [line for point in points for line in run_point(point, wrap, Random(1)).complaints]


def sync_way(name: str) -> Way:
    return next(way for way in CLIENT_WAYS if way.name == f"failed sync, {name}")


def test_points_of_clients_are_all_calls_of_all_their_workloads() -> None:
    points = points_of(CLIENT_WAYS, 1, tuple(CLIENT_WORKLOADS))
    assert set(CLIENT_WORKLOADS) == {point.work.name for point in points}
    assert all(sum(kind in p.way.kinds for kind in p.calls) >= p.nth for p in points)


def test_a_lost_commit_of_clients_is_noticed() -> None:
    """Their log is not synced, and they are told that it was."""
    found = complaints_of_clients(sync_way("xfs"), without(("sync", "wal.record.sync")), 8)
    assert any("allowed are" in line for line in found)


def test_clients_that_go_on_after_a_failed_sync_are_noticed(monkeypatch) -> None:
    monkeypatch.setattr("holdfast.engine.write_path.WritePath.poison", lambda self, cause: None)
    assert complaints_of_clients(sync_way("ext4-ordered"), step=16)


def test_clients_that_are_told_one_object_are_noticed(monkeypatch) -> None:
    monkeypatch.setattr("holdfast.engine.write_path.copy_error", lambda error: error)
    found = complaints_of_clients(sync_way("xfs"), step=6)
    assert any("the object of another one" in line for line in found)


def test_a_client_that_is_refused_and_whose_commit_is_found_is_noticed(monkeypatch) -> None:
    """The log keeps a record that it refused for want of room."""
    monkeypatch.setattr("holdfast.wal.writer.LogWriter._wipe", lambda self: None)
    real = FaultFile.write_at

    def write_at(self, offset, data, *, site):
        try:
            real(self, offset, data, site=site)
        except OSError:
            self._inner.write_at(offset, bytes(data), site=site)
            raise

    monkeypatch.setattr("holdfast.env.fault.FaultFile.write_at", write_at)
    way = next(way for way in CLIENT_WAYS if way.name == "write cut short, ENOSPC")
    assert complaints_of_clients(way, step=11)
