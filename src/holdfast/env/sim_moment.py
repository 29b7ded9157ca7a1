"""A simulated disk at one moment: its durable state, and which of the pending changes may survive.

Whatever may be on the disk after the power is cut is the durable state plus some of the pending
changes, each whole or in a damaged variant. A choice of them is a bit mask over the changes in the
order they were made, and a dict of variants.
"""

from __future__ import annotations

from hashlib import blake2b

from holdfast.env.sim_disk import (
    Disk,
    FileChange,
    FileNode,
    FolderNode,
    NameChange,
    Names,
    Resize,
    Write,
    Zeros,
)
from holdfast.env.sim_image import Image

Variants = dict[int, tuple[FileChange, ...]]
"""The changes that take the place of the change at a position."""

Tree = dict[str, "Image | Tree"]
"""A folder in a crash state: all images are frozen."""


class Moment:
    """A disk at one moment: durable state, pending changes, and the rules of its profile.

    Holds copies and frozen images only, so the disk may go on changing.
    """

    def __init__(self, disk: Disk) -> None:
        self.profile = disk.profile
        self.changes: list[tuple[FileChange | NameChange, str]] = []
        self.durable: dict[int, Image] = {}
        self.paths: dict[int, str] = {}
        self._root = disk.root
        self._names: dict[int, Names] = {}
        self._images: dict[tuple[int, int], Image] = {}
        self._masks: dict[int, int] = {}
        self._positions: dict[int, list[int]] = {}
        self._owners: list[int] = []
        self._damaged: dict[int, Image] = {}
        self._lies = [(node.number, begun) for node, begun in disk.lies]
        self._collect(disk)

    def _collect(self, disk: Disk) -> None:
        """Visit everything that some crash state may contain."""
        owned: list[tuple[FileChange | NameChange, int]] = []
        self.paths[disk.root.number] = ""
        for folder in disk.folders():
            self._names[folder.number] = dict(folder.durable)
            owned += [(change, folder.number) for change in folder.pending]
            found = list(folder.durable.items())
            found += [(change.name, change.node) for change in folder.pending if change.node]
            for name, node in found:
                if node.number not in self.paths:
                    self.paths[node.number] = f"{self.paths[folder.number]}/{name}"
                if isinstance(node, FileNode) and node.number not in self.durable:
                    self.durable[node.number] = node.durable.freeze()
                    owned += [(change, node.number) for change in node.pending]
        owned.sort(key=lambda pair: pair[0].index)
        for position, (change, number) in enumerate(owned):
            self.changes.append((change, self.paths[number] or "/"))
            self._owners.append(number)
            self._positions.setdefault(number, []).append(position)
            self._masks[number] = self._masks.get(number, 0) | 1 << position

    @property
    def full(self) -> int:
        """The mask of all changes."""
        return (1 << len(self.changes)) - 1

    def files(self) -> list[int]:
        """Return the numbers of files with pending changes."""
        return sorted(number for number in self._positions if number in self.durable)

    def positions(self, number: int) -> list[int]:
        """Return the positions of a file's changes, in order."""
        return self._positions[number]

    def name_positions(self) -> list[int]:
        """Return the positions of all changes of names, in order."""
        return [i for i, (change, _) in enumerate(self.changes) if isinstance(change, NameChange)]

    def file_change(self, position: int) -> FileChange:
        """Return the change of a file at `position`."""
        change = self.changes[position][0]
        assert not isinstance(change, NameChange)
        return change

    def reaches(self, number: int, position: int) -> bool:
        """Return whether a change ends beyond what is durable of its file."""
        return self.file_change(position).end > self.durable[number].size

    def logged(self) -> int:
        """Return the mask of the changes of files that keep an order with names."""
        if not self.profile.metadata_ordered:
            return 0
        mask = 0
        for position, (change, _) in enumerate(self.changes):
            if isinstance(change, Resize | Zeros):
                mask |= 1 << position
        return mask

    def lies(self) -> list[int]:
        """Return what each of the last syncs covers that may have had no effect, oldest first."""
        masks = []
        for number, begun in self._lies:
            covered = 0
            for position, (change, _) in enumerate(self.changes):
                is_own = self._owners[position] == number
                if self.profile.sync_commits_names:
                    is_own = is_own or isinstance(change, NameChange)
                if is_own and change.index < begun:
                    covered |= 1 << position
            masks.append(covered)
        return masks

    def legal(self, mask: int, variants: Variants) -> int:
        """Return the greatest part of `mask` that the profile allows."""
        if self.profile.metadata_ordered:
            mask = self._in_log_order(mask, variants)
        elif self.profile.names_ordered:
            broken = False
            for position in self.name_positions():
                if broken:
                    mask &= ~(1 << position)
                broken = broken or not mask >> position & 1
        if not self.profile.size_before_data:
            for number in self.files():
                broken = False
                for position in self._positions[number]:
                    if not self.reaches(number, position):
                        continue
                    if broken:
                        mask &= ~(1 << position)
                    broken = broken or not mask >> position & 1 or position in variants
        return mask

    def _in_log_order(self, mask: int, variants: Variants) -> int:
        """Return the part of `mask` that one log of all metadata allows."""
        broken = False
        untruncated: set[int] = set()
        for position, (change, _) in enumerate(self.changes):
            number = self._owners[position]
            if isinstance(change, Write):
                is_lost = number in untruncated or (broken and self.reaches(number, position))
            else:
                is_kept = mask >> position & 1 and self._keeps_end(position, variants)
                is_lost = broken = broken or not is_kept
                if is_lost and isinstance(change, Resize):
                    untruncated.add(number)
            if is_lost:
                mask &= ~(1 << position)
        return mask

    def _keeps_end(self, position: int, variants: Variants) -> bool:
        """Return whether what is left of a change still ends where it did."""
        if position not in variants:
            return True
        end = self.file_change(position).end
        return any(piece.end == end for piece in variants[position])

    def tree(self, mask: int, variants: Variants) -> tuple[Tree, str]:
        """Return the disk with the chosen changes, and the hash of its content."""
        self._damaged.clear()
        tree, digest = self._folder(self._root, mask, variants)
        return tree, digest.hex()

    def _folder(self, folder: FolderNode, mask: int, variants: Variants) -> tuple[Tree, bytes]:
        names = self._names[folder.number]
        if mask & self._masks.get(folder.number, 0):
            names = dict(names)
            for position in self._positions[folder.number]:
                if mask >> position & 1:
                    change = self.changes[position][0]
                    assert isinstance(change, NameChange)
                    change.apply(names)
        tree: Tree = {}
        state = blake2b(digest_size=16)
        for name in sorted(names):
            node = names[name]
            if isinstance(node, FileNode):
                image = self._image(node.number, mask, variants)
                tree[name] = image
                kind, digest = b"f", image.digest()
            else:
                tree[name], digest = self._folder(node, mask, variants)
                kind = b"d"
            state.update(kind + digest + name.encode() + b"\0")
        return tree, state.digest()

    def _image(self, number: int, mask: int, variants: Variants) -> Image:
        own = mask & self._masks.get(number, 0)
        if not own:
            return self.durable[number]
        damaged = any(own >> position & 1 for position in variants)
        # A file with two names must have one image in a tree, damaged or not.
        known = self._damaged.get(number) if damaged else self._images.get((number, own))
        if known is not None:
            return known
        image = self.durable[number].thawed()
        for position in self._positions[number]:
            if own >> position & 1:
                for change in variants.get(position, (self.file_change(position),)):
                    change.apply(image)
        if damaged:
            self._damaged[number] = image.freeze()
        else:
            self._images[number, own] = image.freeze()
        return image
