"""Each call of small workloads fails in each way: a part of all points, and all of them on request.

`holdfast torture --parts errors,syncs` tries all of them, one after another; so does
`pytest -m deep`. Here it is a sample that goes over all workloads, ways and calls evenly.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

from holdfast.env import FaultRule
from holdfast.testing.crash import same_machine
from holdfast.testing.mutants import without
from holdfast.testing.torture_points import (
    ERROR_WAYS,
    SYNC_WAYS,
    WORKLOADS,
    PointsPart,
    Way,
    errors_part,
    points_of,
    run_point,
    scattered,
    syncs_part,
)

PARTS = {"errors": errors_part, "syncs": syncs_part}
SAMPLES = {"errors": 160, "syncs": 120}


def judged(part: PointsPart, count: int) -> PointsPart:
    for _ in range(count):
        part.step()
        assert not part.failures, part.failures
    return part


@pytest.mark.parametrize("name", PARTS)
def test_a_sample_of_all_points_passes(name: str) -> None:
    part = judged(PARTS[name](1, same_machine), SAMPLES[name])
    ways = ERROR_WAYS if name == "errors" else SYNC_WAYS
    assert {way.name for way in ways} == {way for way, what in part.runs if what == "runs"}
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
