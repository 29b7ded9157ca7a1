"""What a simulated file system and disk may lose when the power goes: one small value per kind of
machine.

Every profile lets unsynced writes survive in any combination of sectors. The fields say what more
may happen, so a profile with every field at its weakest (`posix-min`) is the one an engine must
survive, and the others check that nothing in the engine is needed on weaker machines only. Two are
worse than POSIX allows: a disk that damages the neighbours of what it writes, and one that lies
about syncs. The rules of a profile are those of the litmus tests in tests/unit/env; what each may
lose is told in docs/internals/disk-model.md.

A profile may let more happen than its machine does, never less, but for one simplification: where
`sync_commits_names` is set, a file that is synced is taken to have changed since the names did.

Source: the persistence models of ALICE (OSDI 2014) and the ext4 model of Ferrite (ASPLOS 2016); the
damaged neighbours are what SQLite calls the lack of powersafe overwrite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The rules by which a crash state is legal."""

    name: str

    sector_bytes: int = 512
    """Writes survive sector by sector. A power of two between 512 and 4096."""

    rename_atomic: bool
    """A rename survives whole or not at all; else the old name may go without the new one coming,
    and the reverse.
    """

    names_ordered: bool
    """Changes of names survive as a prefix of the order they were made in, over all folders; else
    as any subset.
    """

    sync_commits_names: bool
    """A sync of a file or a folder makes every earlier change of names durable, as one journal
    commit does.
    """

    size_before_data: bool
    """A file may have grown while the new bytes read as zeros or garbage; else it grows write by
    write, in order.
    """

    torn_sectors: bool
    """A sector being written may keep a part of the new bytes, with zeros or garbage for the rest
    of the write.

    Bytes of that sector outside the write are not damaged.
    """

    metadata_ordered: bool = False
    """Truncations and allocations survive in one order with the changes of names, and a file grows
    by a write only with all of those before it.

    A write after a truncation of the same file survives only with it. Includes `names_ordered`.
    """

    garbage_in_room: bool = True
    """Where a file has grown before its data, it reads as garbage or stale bytes of other files
    too; else as zeros only.
    """

    overwrites_atomic: bool = False
    """A write over durable bytes survives whole or not at all, as copy on write gives it; else
    sector by sector.
    """

    collateral: bool = False
    """A sector that is torn may lose all its bytes, also synced ones that the write did not touch:
    there is no powersafe overwrite.
    """

    lying_syncs: int = 0
    """How many of the last syncs may have returned without effect."""

    def __post_init__(self) -> None:
        if self.sector_bytes not in (512, 1024, 2048, 4096):
            raise ValueError(f"sector_bytes is {self.sector_bytes}; it is 512, 1024, 2048 or 4096")
        if self.metadata_ordered and not self.names_ordered:
            raise ValueError("metadata_ordered includes names_ordered")
        if self.lying_syncs < 0:
            raise ValueError(f"lying_syncs is {self.lying_syncs}; it must not be negative")


POSIX_MIN = Profile(
    name="posix-min",
    rename_atomic=False,
    names_ordered=False,
    sync_commits_names=False,
    size_before_data=True,
    torn_sectors=True,
)
"""The least that POSIX promises: any file system, also of the future."""

EXT4_ORDERED = Profile(
    name="ext4-ordered",
    rename_atomic=True,
    names_ordered=True,
    sync_commits_names=True,
    size_before_data=False,
    torn_sectors=False,
)
"""ext4 with data=ordered, the default of most Linux machines."""

XFS_DELALLOC = Profile(
    name="xfs-delalloc",
    rename_atomic=True,
    names_ordered=True,
    sync_commits_names=False,
    size_before_data=True,
    torn_sectors=False,
    metadata_ordered=True,
    garbage_in_room=False,
)
"""XFS: metadata goes through one log, data is given its place late. A file may be of zero length
under its new name, or have its size and read as zeros.
"""

COW_BTRFS = replace(XFS_DELALLOC, name="cow-btrfs", sector_bytes=4096, overwrites_atomic=True)
"""Btrfs: what is synced is never overwritten in place; transactions keep the order of names."""

NVME_4K = replace(POSIX_MIN, name="nvme-4k", sector_bytes=4096, torn_sectors=False)
"""A disk that writes 4096 bytes whole or not at all, under the weakest file system."""

NO_PSOW = replace(POSIX_MIN, name="no-psow", collateral=True)
"""A disk without powersafe overwrite, under the weakest file system.

What is appended to a sector that holds synced bytes puts these at risk: an engine survives only
when what it syncs ends at a multiple of the sector.
"""

NO_PSOW_4K = replace(NO_PSOW, name="no-psow-4k", sector_bytes=4096)
"""The same with sectors of 4096 bytes."""

LIAR = replace(POSIX_MIN, name="liar", lying_syncs=3)
"""A disk whose last three syncs may have had no effect.

Acknowledged commits may be lost. What is found must still be one state of the history, or be
refused as damaged.
"""

PROFILES = {
    profile.name: profile
    for profile in (
        POSIX_MIN,
        EXT4_ORDERED,
        XFS_DELALLOC,
        COW_BTRFS,
        NVME_4K,
        NO_PSOW,
        NO_PSOW_4K,
        LIAR,
    )
}
"""Every profile by name."""
