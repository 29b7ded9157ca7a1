"""Sync mutants: the engine with one sync taken out, which the crash explorer must notice.

A sync is named by its kind and call site. `without` gives an env in which that call claims success
and does nothing, in the workload's life and in every life after a crash. A mutant that survives all
workloads is a sync that nobody needs, or a hole in the workloads, the classes or the oracle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from holdfast.env import Env, FaultEnv, FaultRule, SimEnv
from holdfast.testing.crash import Failure, Options, record, run
from holdfast.testing.oracle import WorkloadError, Wrap
from holdfast.testing.workload import CANONICAL, workload

SYNC_KINDS = ("sync", "sync_dir")

Site = tuple[str, str]
"""The kind of a call and its call site."""


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
    try:
        outcome = run(name, seed=seed, options=replace(options, failures_max=1), wrap=without(site))
    except WorkloadError as error:
        return Failure(name, seed, options.profile, "", (str(error),))
    return outcome.failures[0] if outcome.failures else None
