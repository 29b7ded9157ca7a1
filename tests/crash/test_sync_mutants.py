"""Take one sync out of the engine, or do it in the wrong place: some crash of some workload must
then fail.

The table names, for every sync that the workloads reach, the workload that notices its absence. A
new sync fails the first test until it has its line here, and one in `FOLLOWS`.
"""

import pytest

from holdfast.testing.crash import Options, replay
from holdfast.testing.mutants import (
    FOLLOWS,
    MUTANTS,
    Mutant,
    Site,
    kill,
    kill_with,
    sync_sites,
    without,
)

KILLERS: dict[Site, str] = {
    ("sync", "ingest.write.sync"): "ingest",
    ("sync", "manifest.create.sync"): "sync_puts",
    ("sync", "manifest.edit.sync"): "keyspaces",
    ("sync", "table.write.sync"): "sync_puts",
    ("sync", "wal.beside.sync"): "batches_two_keyspaces",
    ("sync", "wal.end.sync"): "segment_rotation",
    ("sync", "wal.record.sync"): "sync_puts",
    ("sync", "wal.segment.sync"): "sync_puts",
    ("sync_dir", "database.parent.folder_sync"): "sync_puts",
    ("sync_dir", "ingest.folder_sync"): "ingest",
    ("sync_dir", "manifest.create.folder_sync"): "sync_puts",
    ("sync_dir", "manifest.marker.folder_sync"): "sync_puts",
    ("sync_dir", "table.folder_sync"): "sync_puts",
    ("sync_dir", "wal.segment.folder_sync"): "sync_puts",
}


def test_every_sync_of_the_engine_has_its_workload() -> None:
    found = sync_sites()
    assert sorted(found) == sorted(KILLERS) == sorted(FOLLOWS)
    assert not [site for site, name in KILLERS.items() if name not in found[site]]


@pytest.mark.parametrize("site", KILLERS, ids=lambda site: "-".join(site))
def test_the_engine_without_a_sync_does_not_survive(site: Site) -> None:
    failure = kill(site, KILLERS[site], Options(depth=1))
    assert failure is not None
    assert failure.complaints


def test_the_line_that_a_failure_prints_replays_it() -> None:
    site = ("sync", "table.write.sync")
    failure = kill(site, "sync_puts", Options(depth=1))
    assert failure is not None
    expected = f'./dev crash --workload sync_puts --seed 0 --state "{failure.path}"'
    assert expected == failure.replay
    explained, complaints = replay("sync_puts", 0, failure.path, wrap=without(site))
    assert failure.complaints == tuple(complaints)
    assert explained[0].startswith("-- life 1 ends after")
    assert [] == replay("sync_puts", 0, failure.path)[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_engine_with_a_sync_in_the_wrong_place_does_not_survive(mutant: Mutant) -> None:
    failure = kill_with(mutant.wrap, KILLERS[mutant.site], Options(depth=1))
    assert failure is not None
    assert failure.complaints


HARMLESS = [
    Mutant("of nothing", ("sync", "nowhere"), (("sync", "manifest.edit.sync"),)),
    # The edit that names the table comes after the folder's sync.
    Mutant("later", ("sync", "table.write.sync"), (("sync_dir", "table.folder_sync"),)),
]


@pytest.mark.parametrize("mutant", HARMLESS, ids=lambda mutant: mutant.name)
def test_a_sync_that_is_done_in_time_survives(mutant: Mutant) -> None:
    assert kill_with(mutant.wrap, "flush", Options(depth=1)) is None
