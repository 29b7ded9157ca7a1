"""Failed syncs with the after-effects they have on real file systems: rules for a `FaultEnv` over a
`SimEnv`.

In all of them the cached blocks are clean afterwards: a second sync succeeds and writes none of
them, so that only what is written anew can still become durable.

| name | what the sync says | what reads see | what is on the disk |
|---|---|---|---|
| `ext4-ordered` | EIO | the new bytes | old bytes; where the file grew, garbage |
| `ext4-journal` | nothing; the next one EIO | the new bytes | the same |
| `xfs` | EIO | the new bytes | old bytes; the file has not grown |
| `btrfs` | EIO | the old bytes and size | the old bytes and size |
| `write-back` | EIO, though a write failed it | the new bytes | as `ext4-ordered` |

A sync that reports the error of an earlier call writes nothing, and what is pending stays so. Each
handle that was open at the failure reports it once (see sim).

`failed` names the blocks of 4096 bytes, by number in the file, that are lost; the others are
written. Btrfs loses all or none of a sync.

Source: Can Applications Recover from fsync Failures? (ATC 2020), and the counted error sequence
that Linux keeps for each file since 4.16.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from holdfast.env.fault import Effect, FaultRule
from holdfast.env.protocol import File
from holdfast.env.sim import WriteBack

FailedBlocks = Callable[[int], bool]
"""Says of a block, by its number in the file, whether writing it fails."""


def every_block(block: int) -> bool:
    """Say that writing a block fails, whichever it is."""
    return True


@runtime_checkable
class _FailsWriteBack(Protocol):
    def owes_error(self) -> bool: ...

    def fail_write_back(
        self, failed: FailedBlocks, *, outcome: WriteBack, is_told: bool
    ) -> None: ...


class FailedSync(Protocol):
    """Makes a rule by which syncs fail. The arguments are those of `FaultRule`."""

    def __call__(
        self,
        *,
        site: str = "*",
        path: str = "*",
        nth: int = 1,
        times: int | None = 1,
        chance: float = 1.0,
        seed: int = 0,
        failed: FailedBlocks = every_block,
    ) -> FaultRule: ...


@dataclass(frozen=True, slots=True)
class _FailedSync:
    """A `FailedSync`."""

    kind: str
    outcome: WriteBack
    is_told: bool

    def __call__(
        self,
        *,
        site: str = "*",
        path: str = "*",
        nth: int = 1,
        times: int | None = 1,
        chance: float = 1.0,
        seed: int = 0,
        failed: FailedBlocks = every_block,
    ) -> FaultRule:
        return FaultRule(
            kind=self.kind,
            site=site,
            path=path,
            nth=nth,
            times=times,
            chance=chance,
            seed=seed,
            error=errno.EIO if self.is_told else None,
            effect=self._effect(failed),
        )

    def _effect(self, failed: FailedBlocks) -> Effect:
        def fail(call: Callable[[], object], file: File | None) -> None:
            if not isinstance(file, _FailsWriteBack):
                raise TypeError("only a file of a SimEnv can fail to write its cached blocks")
            if self.kind == "write" or file.owes_error():
                # The call of a sync raises what is owed, and does nothing.
                call()
            file.fail_write_back(failed, outcome=self.outcome, is_told=self.is_told)

        return fail


FAILED_SYNCS: dict[str, FailedSync] = {
    "ext4-ordered": _FailedSync("sync", "grown", is_told=True),
    "ext4-journal": _FailedSync("sync", "grown", is_told=False),
    "xfs": _FailedSync("sync", "short", is_told=True),
    "btrfs": _FailedSync("sync", "reverted", is_told=True),
    "write-back": _FailedSync("write", "grown", is_told=False),
}
"""The rules of each way to fail, by name."""
