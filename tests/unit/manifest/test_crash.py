"""The power is cut before and after every operation; every legal state of the disk must open."""

from collections.abc import Callable

import pytest

from holdfast.base import KeyspaceSettings, marks_seen
from holdfast.env import SimCrash, SimEnv, crash_states
from holdfast.manifest import Recovered, Version, VersionEdit, VersionSet

ID = bytes(range(16))
FOLDER = "/db"


def reopen(env: SimEnv, found: Recovered) -> VersionSet:
    """What an open does: a manifest of its own, then the older ones go."""
    versions = VersionSet.create(
        env,
        FOLDER,
        found.next_number,
        found.database_id or ID,
        found.version,
        iteration=found.iteration + 1,
    )
    for name in versions.obsolete:
        env.unlink(f"{FOLDER}/{name}", site="test.unlink")
    return versions


def scenario(env: SimEnv, acknowledge: Callable[[Version], None]) -> None:
    """Two lives of a database: edits, a rewrite, a reopen, edits."""
    env.make_dir(FOLDER, site="test.folder")
    env.sync_dir("/", site="test.folder_sync")
    versions = reopen(env, VersionSet.recover(env, FOLDER))
    acknowledge(versions.version)
    for number in range(3):
        created = ((number, f"k{number}", KeyspaceSettings()),)
        acknowledge(versions.log(VersionEdit(keyspaces_created=created)))
    for name in versions.rewrite(versions.version.next_number):
        env.unlink(f"{FOLDER}/{name}", site="test.unlink")
    acknowledge(versions.version)
    acknowledge(versions.log(VersionEdit(keyspaces_dropped=(1,))))
    versions.close()
    versions = reopen(env, VersionSet.recover(env, FOLDER))
    acknowledge(versions.version)
    acknowledge(versions.log(VersionEdit(keyspaces_dropped=(0,), clean=True)))
    versions.close()


def names(version: Version) -> tuple[str, ...]:
    return tuple(keyspace.name for keyspace in version.keyspaces.values())


HISTORY = [(), ("k0",), ("k0", "k1"), ("k0", "k1", "k2"), ("k0", "k2"), ("k2",)]
"""The keyspaces in the order in which the scenario passes through them."""


@pytest.mark.parametrize("profile", ["posix-min", "ext4-ordered"])
def test_what_was_acknowledged_is_there_after_any_crash(profile: str) -> None:
    """The version found is the last acknowledged one or the one being written, never an older or
    another one; a reopen goes on from it, and a second crash during that changes nothing. The
    mark manifest.tail_cut is seen on the way.
    """
    whole = SimEnv(profile=profile)
    scenario(whole, lambda version: None)
    opened = 0
    for index in range(whole.op_count + 1):
        env = SimEnv(profile=profile)
        acknowledged = [Version()]
        env.crash_at(index)
        try:
            scenario(env, acknowledged.append)
        except SimCrash:
            pass
        for state in crash_states(env):
            opened += 1
            check_state(state.build(), acknowledged[-1])
    assert opened > 50
    assert "manifest.tail_cut" in marks_seen()


def check_state(disk: SimEnv, acknowledged: Version) -> None:
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
    versions = reopen(disk, found)
    again = VersionSet.recover(disk, FOLDER)
    assert again.version == versions.version
    assert names(again.version) == names(found.version)
