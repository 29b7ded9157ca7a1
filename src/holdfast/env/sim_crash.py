"""What a simulated disk may hold after the power was cut: legal states, by named classes, without
repetition.

A moment is the durable state of every file and folder and the list of pending changes in the order
they were made. A crash state is a choice: which changes are kept (a bit mask) and which of those
are replaced by a damaged variant. The choice is made legal for the profile, turned into a tree of
shared images, and dropped when its content was seen before.

Classes, in the order they come:

- `none`, `all`: no pending change survived; every one did (a killed process).
- `prefix-K`: the first K changes. `drop-one-P`: all but change P; with `-garbage`, the room of a
  write that grew the file holds garbage. `only-one-P`: change P alone.
- `torn-last`: of the last pending write of a file, some sectors are missing, or a sector is torn.
- `size-skew`: a size survived without the bytes (zeros, garbage, or stale bytes of another file),
  or the reverse.
- `collateral-P`: the write P damaged synced bytes of its first or last sector, with all other
  changes or only with those before it. Only where the profile says so.
- `dir-subset-M-data` and `-nodata`: subset M of the changes of names, with every or no change of
  files. All subsets of up to six changes, beyond that all but two and all of only two.
- `file-cuts`: two files cut at prefixes of their own changes, all pairs, sampled beyond 64.
- `lost-syncs-M`: of the last syncs that may have lied, those of subset M did, with nothing else or
  with the rest of what is pending. Only where the profile says so.
- `random-S-K`: state K of seed S: every change kept or not, writes torn at random sectors.
- `power-set-M` (on request): every subset of at most twelve changes.

A name replays: `crash_state(env, name)` gives the same state for the same history and seed.

Source: ALICE (OSDI 2014) for the exploration of omissions and cuts; B3 (OSDI 2018) for bounding it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from holdfast.env.sim import SimEnv
from holdfast.env.sim_choices import CRASH_CLASSES, Choice, crash_choices
from holdfast.env.sim_disk import Disk, FileNode, FolderNode
from holdfast.env.sim_image import Image
from holdfast.env.sim_moment import Moment, Tree

_WALL_STEP = 1.0
"""How much wall time passes, in seconds, between a crash and the next boot."""


class CrashState:
    """One thing the disk may hold after the power was cut.

    `name` replays it, `kind` is its class, `content_hash` is equal for equal trees, `build` gives a
    machine that booted from it.
    """

    __slots__ = ("_choice", "_point", "_tree", "content_hash", "kind", "name")

    def __init__(
        self, point: CrashPoint, kind: str, choice: Choice, tree: Tree, content_hash: str
    ) -> None:
        self.name = choice[0]
        self.kind = kind
        self.content_hash = content_hash
        self._point = point
        self._choice = choice
        self._tree = tree

    def __repr__(self) -> str:
        return f"CrashState({self.name!r})"

    def build(self, seed: int | None = None) -> SimEnv:
        """Return a fresh env whose disk is this state, all of it durable.

        Without a seed it gets one of its own, made from the seed of the crashed env and the
        content: a machine that starts again must not draw the same random numbers.
        """
        if seed is None:
            text = f"{self._point.seed}/{self.content_hash}".encode()
            seed = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
        env = SimEnv(seed, self._point.moment.profile)
        env.wall_start = self._point.wall_time + _WALL_STEP
        _plant(env.disk, env.disk.root, self._tree, {})
        return env

    def explain(self) -> str:
        """Return one line for each change that was pending: what it was and whether it survived."""
        _, mask, variants = self._choice
        lines = []
        for position, (change, owner) in enumerate(self._point.moment.changes):
            if not mask >> position & 1:
                fate = "lost"
            elif position in variants:
                fate = f"became {list(variants[position])}"
            else:
                fate = "kept"
            where = f"{owner}, operation {change.index}, {change.site}"
            lines.append(f"{position}: {change!r} ({where}): {fate}")
        return "\n".join(lines)


def _plant(disk: Disk, folder: FolderNode, tree: Tree, files: dict[int, FileNode]) -> None:
    """Fill a folder of a fresh disk. A file with two names has one image, by which it is known."""
    for name, content in tree.items():
        node: FileNode | FolderNode
        if isinstance(content, Image):
            known = files.get(id(content))
            node = files[id(content)] = known or disk.new_file(content)
        else:
            node = disk.new_folder()
            _plant(disk, node, content, files)
        folder.volatile[name] = folder.durable[name] = node


class CrashPoint:
    """A moment at which the power may go, kept while the machine goes on.

    Holds copies and shared images only: the env is not changed and may be running or crashed.
    """

    __slots__ = ("moment", "seed", "wall_time")

    def __init__(self, env: SimEnv) -> None:
        self.moment = Moment(env.disk)
        self.seed = env.seed
        self.wall_time = env.wall_start + env.uptime

    def states(self, classes: Iterable[str] = CRASH_CLASSES, seed: int = 0) -> Iterator[CrashState]:
        """Yield what the disk may hold when the power goes here, each content once."""
        seen: set[str] = set()
        for kind in classes:
            for choice in crash_choices(self.moment, kind, seed):
                state = self._state(kind, choice)
                if state.content_hash not in seen:
                    seen.add(state.content_hash)
                    yield state

    def state(self, name: str, seed: int = 0) -> CrashState:
        """Return the state that had this name. Raises: KeyError when there is none."""
        for kind in (*CRASH_CLASSES, "power-set"):
            if name == kind or name.startswith(kind + "-"):
                for choice in crash_choices(self.moment, kind, seed):
                    if choice[0] == name:
                        return self._state(kind, choice)
        raise KeyError(name)

    def _state(self, kind: str, choice: Choice) -> CrashState:
        name, mask, variants = choice
        mask = self.moment.legal(mask, variants)
        tree, digest = self.moment.tree(mask, variants)
        return CrashState(self, kind, (name, mask, variants), tree, digest)


def crash_states(
    env: SimEnv, classes: Iterable[str] = CRASH_CLASSES, seed: int = 0
) -> Iterator[CrashState]:
    """Yield what the disk may hold when the power goes now, each content once.

    The env may be running or crashed; it is not changed, and may go on while the iterator is used.
    """
    return CrashPoint(env).states(classes, seed)


def crash_state(env: SimEnv, name: str, seed: int = 0) -> CrashState:
    """Return the state that had this name. Raises: KeyError when there is none."""
    return CrashPoint(env).state(name, seed)
