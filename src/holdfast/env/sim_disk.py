"""A simulated disk: for every file and folder what is written, what is durable, and what lies
between.

Each file has a volatile image (what reads see), a durable image (what survives for certain) and the
list of changes since the last completed sync. Each folder has the same three of its names. A change
keeps the index of the operation that made it, the place in the source it came from, and enough to
be applied to any image or dict of names, so that a crash state is "the durable state plus some of
the changes" and costs no copy of the disk.

1. volatile = durable plus all pending changes in order, unless writes were lost by `lose`.
2. A sync that began when `n` operations were done moves the changes with index < n, and no others,
   into the durable state. Where the profile has lying syncs, the last of them are kept in `lies`
   and do so when enough others have followed.
3. A file without any name and without an open handle is gone; nothing refers to it.

Thread safety: none; the scheduler lets one thread run at a time.
"""

from __future__ import annotations

import errno
import os
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from holdfast.env.sim_image import CHUNK_BYTES, Image
from holdfast.env.sim_profile import Profile

Names = dict[str, "FileNode | FolderNode"]


class FileChange(Protocol):
    """A change of one file that is not durable yet."""

    index: int
    site: str
    end: int
    """Where the change ends in the file."""

    def apply(self, image: Image) -> None:
        """Do the change to `image`, which is not frozen."""
        ...


class Write:
    """Bytes put at an offset.

    Whole chunks are cut once and shared by all images the write is applied to.
    """

    __slots__ = ("_blank", "_chunks", "_head", "data", "end", "index", "offset", "site")

    def __init__(self, index: int, site: str, offset: int, data: bytes) -> None:
        self.index = index
        self.site = site
        self.offset = offset
        self.data = data
        self.end = offset + len(data)
        first = -(-offset // CHUNK_BYTES)
        past = self.end // CHUNK_BYTES
        self._head = min(first * CHUNK_BYTES - offset, len(data))
        self._chunks: dict[int, bytes] = {}
        blank = []
        for number in range(first, past):
            start = number * CHUNK_BYTES - offset
            chunk = data[start : start + CHUNK_BYTES]
            if chunk.count(0) == CHUNK_BYTES:
                blank.append(number)
            else:
                self._chunks[number] = chunk
        self._blank = tuple(blank)

    def __repr__(self) -> str:
        return f"write {len(self.data)} bytes at {self.offset}"

    def apply(self, image: Image) -> None:
        if not self._chunks and not self._blank:
            image.write(self.offset, self.data)
            return
        if self._head:
            image.write(self.offset, self.data[: self._head])
        image.put_chunks(self._chunks, self._blank, self.end)
        tail = self.end % CHUNK_BYTES
        if tail:
            image.write(self.end - tail, self.data[-tail:])


class Zeros:
    """Zeros put at an offset: an allocation."""

    __slots__ = ("end", "index", "offset", "site")

    def __init__(self, index: int, site: str, offset: int, end: int) -> None:
        self.index = index
        self.site = site
        self.offset = offset
        self.end = end

    def __repr__(self) -> str:
        return f"write {self.end - self.offset} zeros at {self.offset}"

    def apply(self, image: Image) -> None:
        image.zero(self.offset, self.end - self.offset)


class Resize:
    """A size set by `truncate`."""

    __slots__ = ("end", "index", "site")

    def __init__(self, index: int, site: str, size: int) -> None:
        self.index = index
        self.site = site
        self.end = size

    def __repr__(self) -> str:
        return f"set the size to {self.end}"

    def apply(self, image: Image) -> None:
        image.resize(self.end)


class NameChange:
    """A change of the names of one folder that is not durable yet.

    `source` is set for a rename that is atomic. Without it, `node` is what `name` now means, None
    for nothing.
    """

    __slots__ = ("index", "name", "node", "site", "source")

    def __init__(
        self, index: int, site: str, name: str, node: FileNode | FolderNode | None, source: str = ""
    ) -> None:
        self.index = index
        self.site = site
        self.name = name
        self.node = node
        self.source = source

    def __repr__(self) -> str:
        if self.source:
            return f"rename {self.source} to {self.name}"
        return f"{'unlink' if self.node is None else 'link'} {self.name}"

    def apply(self, names: Names) -> None:
        if self.source:
            names.pop(self.source, None)
        if self.node is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.node


class FileNode:
    """A file, whatever its name.

    `errors` counts the writes of cached blocks that failed; `error_told` says whether a sync has
    reported the last of them.
    """

    __slots__ = ("durable", "error_told", "errors", "number", "pending", "volatile")

    def __init__(self, number: int, image: Image) -> None:
        self.errors = 0
        self.error_told = True
        self.number = number
        self.volatile = image
        self.durable = image.freeze()
        self.pending: list[FileChange] = []


class FolderNode:
    """A folder, whatever its name."""

    __slots__ = ("durable", "number", "pending", "volatile")

    def __init__(self, number: int) -> None:
        self.number = number
        self.volatile: Names = {}
        self.durable: Names = {}
        self.pending: list[NameChange] = []


def os_error(code: int, path: str) -> OSError:
    """Return the error the operating system gives; Python picks its class by the code."""
    return OSError(code, os.strerror(code), path)


class Disk:
    """The tree of folders and files, and the changes it went through."""

    __slots__ = ("_numbers", "lies", "profile", "root")

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.lies: deque[tuple[FileNode | FolderNode, int]] = deque()
        """The last syncs, oldest first, that had no effect yet."""
        self._numbers = 0
        self.root = FolderNode(0)

    def new_file(self, image: Image) -> FileNode:
        """Return a file that has no name yet."""
        self._numbers += 1
        return FileNode(self._numbers, image)

    def new_folder(self) -> FolderNode:
        """Return a folder that has no name yet."""
        self._numbers += 1
        return FolderNode(self._numbers)

    # --- names ---

    def split(self, path: str) -> tuple[FolderNode, str]:
        """Return the folder that `path` lies in and its last part; "" names the root itself."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        folder = self.root
        for part in parts[:-1]:
            node = folder.volatile.get(part)
            if node is None:
                raise os_error(errno.ENOENT, path)
            if isinstance(node, FileNode):
                raise os_error(errno.ENOTDIR, path)
            folder = node
        return folder, parts[-1] if parts else ""

    def find(self, path: str) -> FileNode | FolderNode:
        """Return what `path` names."""
        folder, name = self.split(path)
        if not name:
            return folder
        node = folder.volatile.get(name)
        if node is None:
            raise os_error(errno.ENOENT, path)
        return node

    def find_file(self, path: str) -> FileNode:
        """Return the file that `path` names."""
        node = self.find(path)
        if isinstance(node, FolderNode):
            raise os_error(errno.EISDIR, path)
        return node

    def find_folder(self, path: str) -> FolderNode:
        """Return the folder that `path` names."""
        node = self.find(path)
        if isinstance(node, FileNode):
            raise os_error(errno.ENOTDIR, path)
        return node

    def link(self, path: str, node: FileNode | FolderNode, index: int, site: str) -> None:
        """Give a new file or folder its first name."""
        folder, name = self.split(path)
        if not name or name in folder.volatile:
            raise os_error(errno.EEXIST, path)
        self._change(folder, NameChange(index, site, name, node))

    def unlink(self, path: str, index: int, site: str) -> None:
        """Take the name of a file away."""
        self.find_file(path)
        folder, name = self.split(path)
        self._change(folder, NameChange(index, site, name, None))

    def rename(self, source: str, target: str, index: int, site: str) -> None:
        """Give the file or folder `source` the name `target` in the same folder."""
        node = self.find(source)
        folder, old = self.split(source)
        other, new = self.split(target)
        if other is not folder:
            raise os_error(errno.EXDEV, target)
        if not old or not new:
            raise os_error(errno.EBUSY, source)
        taken = folder.volatile.get(new)
        if taken is node:
            return
        if taken is not None and not (isinstance(node, FileNode) and isinstance(taken, FileNode)):
            raise os_error(errno.EISDIR if isinstance(taken, FolderNode) else errno.ENOTDIR, target)
        if self.profile.rename_atomic:
            self._change(folder, NameChange(index, site, new, node, source=old))
            return
        if taken is not None:
            self._change(folder, NameChange(index, site, new, None))
        self._change(folder, NameChange(index, site, old, None))
        self._change(folder, NameChange(index, site, new, node))

    def _change(self, folder: FolderNode, change: NameChange) -> None:
        change.apply(folder.volatile)
        folder.pending.append(change)

    # --- bytes ---

    def write(self, node: FileNode, offset: int, data: bytes, index: int, site: str) -> None:
        """Put `data` at `offset`."""
        if data:
            self._alter(node, Write(index, site, offset, data))

    def allocate(self, node: FileNode, size: int, index: int, site: str) -> None:
        """Grow the file to `size` with zeros."""
        if size > node.volatile.size:
            self._alter(node, Zeros(index, site, node.volatile.size, size))

    def truncate(self, node: FileNode, size: int, index: int, site: str) -> None:
        """Set the size."""
        if size != node.volatile.size:
            self._alter(node, Resize(index, site, size))

    def _alter(self, node: FileNode, change: FileChange) -> None:
        node.volatile = node.volatile.thawed()
        change.apply(node.volatile)
        node.pending.append(change)

    # --- durability ---

    def sync(self, node: FileNode | FolderNode, begun: int) -> None:
        """Finish a sync of a file or folder that began when `begun` operations were done."""
        self.lies.append((node, begun))
        while len(self.lies) > self.profile.lying_syncs:
            self._take_effect(*self.lies.popleft())

    def _take_effect(self, node: FileNode | FolderNode, begun: int) -> None:
        if isinstance(node, FileNode):
            durable = node.durable.thawed()
            for change in node.pending:
                if change.index < begun:
                    change.apply(durable)
            node.durable = durable
            node.pending = [change for change in node.pending if change.index >= begun]
        if self.profile.sync_commits_names:
            for folder in self.folders():
                self._commit_names(folder, begun)
        elif isinstance(node, FolderNode):
            self._commit_names(node, begun)

    def lose(self, node: FileNode, *, revert: bool) -> None:
        """Forget the pending writes, as a kernel does after a failed sync.

        Reads go on seeing them (ext4, XFS) unless `revert` (Btrfs); no later sync makes them
        durable.
        """
        self._confess()
        node.pending.clear()
        if revert:
            node.volatile = node.durable.freeze()

    def write_back(
        self, node: FileNode, failed: Callable[[int], bool], *, room_seed: str | None
    ) -> None:
        """Make the pending changes durable but for the blocks that `failed` names by number.

        These keep their old bytes, and no later sync writes them. Where the file grew over such a
        block, it reads as garbage made from `room_seed`; with None the file does not grow for it.
        """
        self._confess()
        image = node.durable.thawed()
        for change in node.pending:
            if isinstance(change, Write):
                self._write_blocks(image, change, failed, room_seed)
            else:
                change.apply(image)
        node.durable = image
        node.pending.clear()

    def _write_blocks(
        self, image: Image, write: Write, failed: Callable[[int], bool], room_seed: str | None
    ) -> None:
        start = write.offset
        while start < write.end:
            block = start // CHUNK_BYTES
            end = min((block + 1) * CHUNK_BYTES, write.end)
            if not failed(block):
                image.write(start, write.data[start - write.offset : end - write.offset])
            elif room_seed is not None and image.size < end:
                room = max(start, image.size)
                noise = random.Random(f"{room_seed}/{block}").randbytes(end - room)
                image.write(room, noise)
            start = end

    def _confess(self) -> None:
        """Let all syncs have their effect: a disk that reports an error lied about none before."""
        while self.lies:
            self._take_effect(*self.lies.popleft())

    def folders(self) -> list[FolderNode]:
        """Return every folder that exists or may exist after a crash, each once, parents first."""
        found = {self.root.number: self.root}
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            nodes = [*folder.durable.values(), *(change.node for change in folder.pending)]
            for node in nodes:
                if isinstance(node, FolderNode) and node.number not in found:
                    found[node.number] = node
                    waiting.append(node)
        return list(found.values())

    def _commit_names(self, folder: FolderNode, begun: int) -> None:
        for change in folder.pending:
            if change.index < begun:
                change.apply(folder.durable)
        folder.pending = [change for change in folder.pending if change.index >= begun]
