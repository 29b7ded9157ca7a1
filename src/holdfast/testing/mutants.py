"""Sync mutants: the engine with one sync taken out or in the wrong place, which the crash explorer
must notice.

A sync is named by its kind and call site. `without` gives an env in which that call claims success
and does nothing, in the workload's life and in every life after a crash. `Mutant` has the others:
the sync is done before the change that it should follow, or only after a later operation. A mutant
that survives all workloads is a sync that nobody needs there, or a hole in the workloads, the
classes or the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from holdfast.env import Env, FaultEnv, FaultRule, File, FileLock, SimEnv
from holdfast.testing.crash import Failure, Options, record, run
from holdfast.testing.oracle import WorkloadError, Wrap
from holdfast.testing.workload import CANONICAL, workload

SYNC_KINDS = ("sync", "sync_dir")
_CHANGES = frozenset(
    ("create", "rename", "unlink", "make_dir", "write", "allocate", "truncate", *SYNC_KINDS)
)

Site = tuple[str, str]
"""The kind of a call and its call site."""

ANY: Site = ("", "")
"""Every operation that changes the disk."""

FOLLOWS: dict[Site, Site] = {
    ("sync", "ingest.write.sync"): ("write", "ingest.write.append"),
    ("sync", "manifest.create.sync"): ("write", "manifest.create.write"),
    ("sync", "manifest.edit.sync"): ("write", "manifest.edit.write"),
    ("sync", "table.write.sync"): ("write", "table.write.append"),
    ("sync", "wal.beside.sync"): ("write", "wal.record.write"),
    ("sync", "wal.end.sync"): ("write", "wal.end.write"),
    ("sync", "wal.record.sync"): ("write", "wal.record.write"),
    ("sync", "wal.segment.sync"): ("write", "wal.segment.header"),
    ("sync_dir", "database.parent.folder_sync"): ("make_dir", "database.folder.create"),
    ("sync_dir", "ingest.folder_sync"): ("create", "ingest.write.create"),
    ("sync_dir", "manifest.create.folder_sync"): ("create", "manifest.create.write"),
    ("sync_dir", "manifest.marker.folder_sync"): ("create", "manifest.marker.create"),
    ("sync_dir", "table.folder_sync"): ("create", "table.write.create"),
    ("sync_dir", "wal.segment.folder_sync"): ("create", "wal.segment.create"),
}
"""Every sync that the workloads reach, and the change that it makes durable."""

OTHER_FOLLOWS: dict[Site, Site] = {
    ("sync", "backup.keys.sync"): ("write", "backup.write"),
    ("sync", "backup.sync"): ("write", "backup.write"),
    ("sync", "export.sync"): ("write", "export.write"),
    ("sync", "keys.sync"): ("write", "keys.write"),
    ("sync", "manifest.edit.undo_sync"): ("truncate", "manifest.edit.undo"),
    ("sync", "repair.copy.sync"): ("write", "repair.copy.write"),
    ("sync", "repair.keys.sync"): ("write", "repair.keys.write"),
    ("sync", "repair.write.sync"): ("write", "repair.write.append"),
    ("sync", "wal.record.wipe_sync"): ("write", "wal.record.wipe"),
    ("sync_dir", "backup.begin_sync"): ("create", "backup.begin"),
    ("sync_dir", "backup.end_sync"): ("unlink", "backup.end"),
    ("sync_dir", "backup.keys.folder_sync"): ("create", "backup.create"),
    ("sync_dir", "backup.parent.folder_sync"): ("make_dir", "backup.folder.create"),
    ("sync_dir", "keys.folder_sync"): ("create", "keys.create"),
    ("sync_dir", "keys.obsolete.folder_sync"): ("unlink", "keys.obsolete.unlink"),
    ("sync_dir", "repair.aside.begin_sync"): ("create", "repair.aside.begin"),
    ("sync_dir", "repair.aside.end_sync"): ("unlink", "repair.aside.end"),
    ("sync_dir", "repair.aside.folder_sync"): ("create", "repair.copy.create"),
    ("sync_dir", "repair.aside.parent.folder_sync"): ("make_dir", "repair.aside.folder"),
    ("sync_dir", "repair.parent.folder_sync"): ("make_dir", "repair.target.folder"),
    ("sync_dir", "repair.target.begin_sync"): ("create", "repair.target.begin"),
    ("sync_dir", "repair.target.end_sync"): ("unlink", "repair.target.end"),
}
"""The same of syncs that no workload reaches, and which tests of their own judge: of backups,
repairs, changes of the key, what is refused for want of room, exports. Those that follow one of
many removals, or no change of their own, are only taken out.
"""

_EDITED = (("sync", "manifest.edit.sync"), ("sync_dir", "manifest.marker.folder_sync"))
_MARKED = (("create", "manifest.marker.create"),)
_UNLINKED = tuple(
    ("unlink", site)
    for site in (
        "manifest.marker.unlink",
        "manifest.obsolete.unlink",
        "recovery.orphan.unlink",
        "table.obsolete.unlink",
        "wal.segment.unlink",
    )
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One sync in the wrong place.

    Without `until` it is done before the change that it should follow. Else it claims success, and
    is done right after the next operation of `until`, or when the database lets go of its lock.
    """

    name: str
    site: Site
    until: tuple[Site, ...] = ()

    def wrap(self, machine: SimEnv) -> Env:
        """Return the env that the engine is given."""
        return _ShiftedEnv(machine, self)


def _swapped(sites: Iterable[Site]) -> list[Mutant]:
    return [Mutant(f"before its change: {site[1]}", site) for site in sites]


def _late() -> list[Mutant]:
    # Only behind these the caller learns that something is durable.
    names = "wal.record.sync", "manifest.edit.sync", "manifest.marker.folder_sync"
    sites = [site for site in FOLLOWS if site[1] in names]
    return [Mutant(f"acknowledged before: {site[1]}", site, (ANY,)) for site in sites]


def _moved() -> list[Mutant]:
    names = (
        "table.write.sync",
        "table.folder_sync",
        "ingest.write.sync",
        "ingest.folder_sync",
        "wal.segment.sync",
        "wal.segment.folder_sync",
    )
    sites = [site for site in FOLLOWS if site[1] in names]
    return [Mutant(f"after the edit's sync: {site[1]}", site, _EDITED) for site in sites]


MUTANTS: tuple[Mutant, ...] = (
    *_swapped(FOLLOWS),
    *_late(),
    *_moved(),
    Mutant(
        "edit before the table's sync",
        ("sync", "table.write.sync"),
        (("write", "manifest.edit.write"), ("create", "manifest.create.write")),
    ),
    Mutant("unlink before the edit's sync", ("sync", "manifest.edit.sync"), _UNLINKED),
    Mutant(
        "unlink before the marker's sync",
        ("sync_dir", "manifest.marker.folder_sync"),
        _UNLINKED,
    ),
    Mutant("marker before the manifest's sync", ("sync", "manifest.create.sync"), _MARKED),
    Mutant(
        "marker before the manifest's name", ("sync_dir", "manifest.create.folder_sync"), _MARKED
    ),
)
"""All mutants but those that take a sync out."""

_REMOVALS = {
    ("sync", "keys.sync"): ("unlink", "keys.obsolete.unlink"),
    ("sync", "export.sync"): ("rename", "export.rename"),
    ("sync_dir", "keys.folder_sync"): ("unlink", "keys.obsolete.unlink"),
    ("sync_dir", "repair.aside.end_sync"): ("unlink", "repair.original.unlink"),
}
"""What may happen only after a sync, because it takes away what was there before."""


def _behind_marker() -> list[Mutant]:
    names = (
        "backup.sync",
        "backup.keys.sync",
        "backup.keys.folder_sync",
        "repair.aside.parent.folder_sync",
        "repair.copy.sync",
        "repair.keys.sync",
        "repair.write.sync",
    )
    marker = ("sync_dir", "manifest.marker.folder_sync")
    sites = [site for site in OTHER_FOLLOWS if site[1] in names]
    return [Mutant(f"after the marker's sync: {site[1]}", site, (marker,)) for site in sites]


OTHER_MUTANTS: tuple[Mutant, ...] = (
    *_swapped(OTHER_FOLLOWS),
    *_behind_marker(),
    *(
        Mutant(f"after {removal[1]}: {site[1]}", site, (removal,))
        for site, removal in _REMOVALS.items()
    ),
)
"""The same of syncs that no workload reaches."""

_CHANGES_BEFORE = FOLLOWS | OTHER_FOLLOWS


class _ShiftedLock:
    """A file lock whose release does what was put off. Implements `FileLock`."""

    def __init__(self, inner: FileLock, settle: Callable[[], None]) -> None:
        self._inner = inner
        self._settle = settle

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def is_held(self) -> bool:
        return self._inner.is_held

    def release(self) -> None:
        self._settle()
        self._inner.release()


class _ShiftedEnv(FaultEnv):
    """The env of a mutant."""

    def __init__(self, machine: SimEnv, mutant: Mutant) -> None:
        super().__init__(machine)
        self._machine = machine
        self._mutant = mutant
        self._put_off: list[str] = []
        self._written = ""

    def lock_file(self, path: str, *, shared: bool = False) -> FileLock:
        return _ShiftedLock(super().lock_file(path, shared=shared), self._settle)

    def create(self, path: str, *, site: str) -> File:
        made = super().create(path, site=site)
        self._after("create", site)
        return made

    def _strike(self, kind: str, site: str, path: str) -> FaultRule | None:
        mutant = self._mutant
        if not mutant.until and (kind, site) == _CHANGES_BEFORE[mutant.site]:
            is_name = mutant.site[0] == "sync_dir"
            self._sync(path.rpartition("/")[0] or "/" if is_name else path)
        if kind == "write":
            # What is put off until after this write comes before the next call; the moment between
            # them is that of before the sync.
            self._written = site
        elif self._written:
            written, self._written = self._written, ""
            self._after("write", written)
        return super()._strike(kind, site, path)

    def _do(
        self, kind: str, site: str, path: str, call: Callable[[], None], file: File | None = None
    ) -> None:
        if (kind, site) == self._mutant.site:
            if self._mutant.until:
                self._put_off.append(path)
            return
        super()._do(kind, site, path, call, file)
        self._after(kind, site)

    def _after(self, kind: str, site: str) -> None:
        until = self._mutant.until
        if (kind, site) in until or (ANY in until and kind in _CHANGES):
            self._settle()

    def _settle(self) -> None:
        if not self._machine.powered:
            return
        for path in tuple(self._put_off):
            # It leaves the list afterwards: another thread may come here meanwhile, and go on.
            self._sync(path)
            if path in self._put_off:
                self._put_off.remove(path)

    def _sync(self, path: str) -> None:
        """Do the sync of the mutant, if what it is about is there."""
        kind, site = self._mutant.site
        if kind == "sync_dir":
            self.inner.sync_dir(path, site=site)
            return
        with suppress(FileNotFoundError):
            file = self.inner.open(path)
            try:
                file.sync(site=site)
            finally:
                file.close()


def without(site: Site) -> Wrap:
    """Return what makes an env whose sync at `site` does nothing."""
    kind, name = site

    def wrap(machine: SimEnv) -> Env:
        return FaultEnv(machine, [FaultRule(kind=kind, site=name, error=None, times=None)])

    return wrap


def sync_sites(names: Iterable[str] = CANONICAL, seed: int = 0) -> dict[Site, list[str]]:
    """Return every sync that the workloads reach, and the workloads that reach it."""
    found: dict[Site, list[str]] = {}
    for name in names:
        operations = record(workload(name, seed)).operations
        sites = {(done.kind, done.site) for done in operations if done.kind in SYNC_KINDS}
        for site in sorted(sites):
            found.setdefault(site, []).append(name)
    return found


def kill(site: Site, name: str, options: Options, seed: int = 0) -> Failure | None:
    """Run a workload without the sync at `site`; return the first failure, or None."""
    return kill_with(without(site), name, options, seed)


def kill_with(wrap: Wrap, name: str, options: Options, seed: int = 0) -> Failure | None:
    """Run a workload on a broken env; return the first failure, or None."""
    try:
        outcome = run(name, seed=seed, options=replace(options, failures_max=1), wrap=wrap)
    except WorkloadError as error:
        return Failure(name, seed, options.profile, "", (str(error),))
    return outcome.failures[0] if outcome.failures else None


def hunt(wrap: Wrap, names: Iterable[str] = CANONICAL) -> Failure | None:
    """Run workloads on a broken env until one fails; return its first failure, or None."""
    for name in names:
        failure = kill_with(wrap, name, Options(depth=1))
        if failure is not None:
            return failure
    return None
