"""The power is cut before and after every operation; every legal state of the disk must open."""

import errno
from collections.abc import Callable
from contextlib import suppress

import pytest

from holdfast.base import CorruptionError, DiskFullError, KeyspaceSettings, marks_seen
from holdfast.env import Env, FaultEnv, FaultRule, SimCrash, SimEnv, crash_states
from holdfast.manifest import Recovered, Version, VersionEdit, VersionSet

ID = bytes(range(16))
FOLDER = "/db"


def reopen(env: Env, found: Recovered, alignment: int) -> VersionSet:
    """What an open does: a manifest of its own, then the older ones go."""
    versions = VersionSet.create(
        env,
        FOLDER,
        found.next_number,
        found.database_id or ID,
        found.version,
        iteration=found.iteration + 1,
        alignment=alignment,
    )
    for name in versions.obsolete:
        env.unlink(f"{FOLDER}/{name}", site="test.unlink")
    return versions


def scenario(machine: SimEnv, acknowledge: Callable[[Version], None], alignment: int) -> None:
    """Two lives of a database: edits, one for which there is no room at first, a rewrite, a reopen,
    edits.
    """
    machine.make_dir(FOLDER, site="test.folder")
    machine.sync_dir("/", site="test.folder_sync")
    full = FaultRule(site="manifest.edit.write", error=errno.ENOSPC, partial=alignment // 2, nth=2)
    env = FaultEnv(machine, [full])
    versions = reopen(env, VersionSet.recover(env, FOLDER), alignment)
    acknowledge(versions.version)
    for number in range(3):
        created = ((number, f"k{number}", KeyspaceSettings()),)
        with suppress(DiskFullError):
            acknowledge(versions.log(VersionEdit(keyspaces_created=created)))
            continue
        acknowledge(versions.log(VersionEdit(keyspaces_created=created)))
    for name in versions.rewrite(versions.version.next_number):
        env.unlink(f"{FOLDER}/{name}", site="test.unlink")
    acknowledge(versions.version)
    acknowledge(versions.log(VersionEdit(keyspaces_dropped=(1,))))
    versions.close()
    versions = reopen(env, VersionSet.recover(env, FOLDER), alignment)
    acknowledge(versions.version)
    acknowledge(versions.log(VersionEdit(keyspaces_dropped=(0,), clean=True)))
    versions.close()


def names(version: Version) -> tuple[str, ...]:
    return tuple(keyspace.name for keyspace in version.keyspaces.values())


HISTORY = [(), ("k0",), ("k0", "k1"), ("k0", "k1", "k2"), ("k0", "k2"), ("k2",)]
"""The keyspaces in the order in which the scenario passes through them."""


@pytest.mark.parametrize(
    ("profile", "alignment"),
    [("posix-min", 8), ("ext4-ordered", 8), ("no-psow", 512), ("no-psow-4k", 4096)],
)
def test_what_was_acknowledged_is_there_after_any_crash(profile: str, alignment: int) -> None:
    """The version found is the last acknowledged one or the one being written, never an older or
    another one; a reopen goes on from it, and a second crash during that changes nothing. The
    mark manifest.tail_cut is seen on the way.
    """
    whole = SimEnv(profile=profile)
    scenario(whole, lambda version: None, alignment)
    opened = 0
    for index in range(whole.op_count + 1):
        env = SimEnv(profile=profile)
        acknowledged = [Version()]
        env.crash_at(index)
        try:
            scenario(env, acknowledged.append, alignment)
        except SimCrash:
            pass
        for state in crash_states(env):
            opened += 1
            check_state(state.build(), acknowledged[-1], alignment)
    assert opened > 50
    assert "manifest.tail_cut" in marks_seen()
    assert "manifest.edit_undone" in marks_seen()


@pytest.mark.parametrize("alignment", [8, 256])
def test_records_that_share_a_sector_are_not_safe_without_powersafe_overwrite(
    alignment: int,
) -> None:
    """What the alignment is for: with less than a sector the crashes above are not all survived."""
    with pytest.raises((CorruptionError, AssertionError)):
        test_what_was_acknowledged_is_there_after_any_crash("no-psow", alignment)


def check_state(disk: SimEnv, acknowledged: Version, alignment: int) -> None:
    if FOLDER.strip("/") not in disk.list_dir("/"):
        assert acknowledged.edit_seq == 0
        return
    found = VersionSet.recover(disk, FOLDER)
    assert found.is_new <= (acknowledged.edit_seq == 0)
    assert acknowledged.edit_seq <= found.version.edit_seq <= acknowledged.edit_seq + 1
    step = HISTORY.index(names(acknowledged))
    assert names(found.version) in HISTORY[step : step + 2]
    if found.version.edit_seq == acknowledged.edit_seq:
        assert found.version == acknowledged
    versions = reopen(disk, found, alignment)
    again = VersionSet.recover(disk, FOLDER)
    assert again.version == versions.version
    assert names(again.version) == names(found.version)
