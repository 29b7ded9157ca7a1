"""What a simulated file system and disk may lose when the power goes: one small value per kind of
machine.

Every profile lets unsynced writes survive in any combination of sectors. The fields say what more
may happen, so a profile with every field at its weakest (`posix-min`) is the one an engine must
survive, and the others check that nothing in the engine is needed on weaker machines only. The
rules of a profile are those of the litmus tests in tests/unit/env.

Source: the persistence models of ALICE (OSDI 2014) and the ext4 model of Ferrite (ASPLOS 2016).
"""

from __future__ import annotations

from dataclasses import dataclass


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

    def __post_init__(self) -> None:
        if self.sector_bytes not in (512, 1024, 2048, 4096):
            raise ValueError(f"sector_bytes is {self.sector_bytes}; it is 512, 1024, 2048 or 4096")


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

PROFILES = {profile.name: profile for profile in (POSIX_MIN, EXT4_ORDERED)}
"""Every profile by name."""
