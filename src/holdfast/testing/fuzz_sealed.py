"""The fuzz target of encrypted databases: key file, log segment, manifest, table and figures.

The attacker has no key: he changes what is there, moves it, and mends every checksum. The rule is
that of the format: what is shown was sealed for its place, is zero, or is 0xFF; or damage is said.
The files that it compares with are made by a small database, the same one in every process.

Thread safety: targets keep no state between executions but these files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from random import Random
from typing import ClassVar, NamedTuple

import holdfast
from holdfast.base import WrongKeyError
from holdfast.codec import checksum
from holdfast.crypto import (
    PREAMBLE_BYTES,
    KeyRing,
    KeySource,
    SealedEnv,
    Sealing,
    WholeFileSealing,
    decode_key_file,
)
from holdfast.env import SimEnv
from holdfast.manifest import ManifestSealing
from holdfast.sstable import FOOTER_BYTES, TABLE_TAIL_BYTES, TableSealing
from holdfast.testing.fuzz_mutate import mutate_number, mutate_often
from holdfast.testing.fuzz_oracle import DAMAGE, Target, attempt, require
from holdfast.wal import LogSealing

_FOLDER = "/db"
_KEY = bytes(range(32))
_MEBIBYTE = 1 << 20
_INPUT_BYTES_MAX = 1 << 15
_PREAMBLE_CHECKED = PREAMBLE_BYTES - 8
_MAGICS = (b"HWSL", b"HWSM")
_SEALINGS: dict[str, Sealing] = {
    "wal": LogSealing(),
    "manifest": ManifestSealing(),
    "table": TableSealing(),
    "LIVE": WholeFileSealing(),
}
_KINDS = ("keys", *_SEALINGS)


class _World(NamedTuple):
    """Sound files by kind, each as (stored, plain), and the keys that open them."""

    ring: KeyRing
    files: dict[str, list[tuple[bytes, bytes]]]


@cache
def _world() -> _World:
    """Make the files: what a killed process leaves, and what one has that is open."""
    env = SimEnv(1)
    settings = holdfast.DatabaseSettings(
        wal_segment_bytes=8192,
        keyspace=holdfast.KeyspaceSettings(page_bytes=256, compression="none"),
    )
    database = holdfast.open(_FOLDER, key=_KEY, env=env, settings=settings)
    for number in range(12):
        database[b"key %d" % number] = b"value %d " % number * 9
    database.flush()
    for number in range(40):
        database[b"key %d" % number] = b"newer %d " % number * 9
    ring = KeyRing.load(env, _FOLDER, KeySource(_KEY))
    face = SealedEnv(env, ring, {f".{kind}": each for kind, each in _SEALINGS.items()})
    files: dict[str, list[tuple[bytes, bytes]]] = {kind: [] for kind in _KINDS}
    for name in env.list_dir(_FOLDER):
        kind = "keys" if name.startswith("KEYS.") else name.rpartition(".")[2]
        if kind not in {"keys", "wal", "manifest", "table"}:
            continue
        stored, shown = env.open(f"{_FOLDER}/{name}"), face.open(f"{_FOLDER}/{name}")
        files[kind].append((stored.read_at(0, stored.size()), shown.read_at(0, shown.size())))
    live = _File(b"")
    _SEALINGS["LIVE"].created(live, ring).write_at(0, b"figures " * 20, site="fuzz")
    files["LIVE"].append((bytes(live.data), b"figures " * 20))
    env.cut_power()
    return _World(ring, files)


class _File:
    """A file in memory. Implements what sealings ask of `File`."""

    name = "input"

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read_at(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def write_at(self, offset: int, data: bytes | bytearray | memoryview, *, site: str) -> None:
        self.data[offset : offset + len(data)] = data

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        raise NotImplementedError

    def truncate(self, size: int, *, site: str) -> None:
        raise NotImplementedError

    def sync(self, *, site: str) -> None:
        raise NotImplementedError

    def write_and_sync_at(
        self, offset: int, data: bytes | bytearray | memoryview, *, site: str, sync_site: str
    ) -> None:
        raise NotImplementedError

    def size(self) -> int:
        return len(self.data)

    def close(self) -> None:
        """Nothing is open."""

    def fileno(self) -> int:
        return -1


class SealedTarget:
    """Input: a byte for the kind of file, and its content."""

    name: ClassVar[str] = "sealed"
    traced: ClassVar[tuple[str, ...]] = (
        "crypto.keyfile", "crypto.preamble", "crypto.whole",
        "wal.sealed", "manifest.sealed", "sstable.sealed",
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        for index, kind in enumerate(_KINDS):
            for stored, _ in _world().files[kind]:
                yield bytes([index]) + stored

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        kind = data[0] % len(_KINDS) if data else 0
        content = bytearray(data[1:])
        choice = rng.random()
        if choice < 0.3:
            content = bytearray(mutate_often(rng, bytes(content), other[1:])[:_INPUT_BYTES_MAX])
        elif choice < 0.5:
            _move(rng, content)
        elif choice < 0.6 and len(content) > 64:
            at = rng.randrange(min(len(content), 200))
            content[at] = mutate_number(rng, content[at], 8)
        elif choice < 0.75:
            _resize(rng, content)
        elif choice < 0.9 and len(content) > 8:
            end = len(content.rstrip(b"\0")) or 1
            content[rng.randrange(end)] ^= 1 << rng.randrange(8)
        else:
            kind = rng.randrange(len(_KINDS))
        if rng.random() < 0.8:
            _mend(_KINDS[kind], content)
        return bytes([kind]) + bytes(content)

    def run(self, data: bytes) -> Iterable[object]:
        if not data:
            return ["empty"]
        kind, content = _KINDS[data[0] % len(_KINDS)], data[1:]
        if kind == "keys":
            return [kind, *_run_keys(content)]
        world = _world()
        opened = attempt(DAMAGE, _read, _SEALINGS[kind], content, world.ring)
        if opened.is_error:
            return [kind, opened.feature]
        shown = opened.value
        sound = [(stored, plain) for stored, plain in world.files[kind]]
        _RULES[kind](content, shown, sound)
        return [kind, "shown", len(shown).bit_length(), shown.count(0xFF).bit_length()]

    def memory_max(self, data: bytes) -> int:
        return 60 * len(data) + 8 * _MEBIBYTE


def _read(sealing: Sealing, content: bytes, ring: KeyRing) -> bytes:
    file = sealing.opened(_File(content), ring)
    return file.read_at(0, file.size() if not isinstance(sealing, WholeFileSealing) else 1 << 16)


def _run_keys(content: bytes) -> Iterator[object]:
    closed = attempt(DAMAGE, decode_key_file, content, "KEYS.1", 1)
    if closed.is_error:
        yield closed.feature
        return
    opened = attempt((*DAMAGE, WrongKeyError), closed.value.unlock, KeySource(_KEY))
    yield opened.feature if opened.is_error else "open"
    is_sound = any(content == stored for stored, _ in _world().files["keys"])
    require(opened.is_error != is_sound, "a key file opens that was not written so")


def _is_log(content: bytes, shown: bytes, sound: list[tuple[bytes, bytes]]) -> None:
    require(len(shown) == len(content), "a segment shows another size than it has")
    plain = next((p for s, p in sound if s[:PREAMBLE_BYTES] == content[:PREAMBLE_BYTES]), b"")
    plain = plain.ljust(len(shown), b"\0")
    for at, (one, two) in enumerate(zip(shown, plain, strict=False)):
        require(one in {0, 0xFF, two}, f"byte {at} was never sealed there")


def _is_manifest(content: bytes, shown: bytes, sound: list[tuple[bytes, bytes]]) -> None:
    whole = shown.removesuffix(b"\xff") if shown.endswith(b"\xff") else shown
    found = any(plain.startswith((whole, shown)) for _, plain in sound)
    require(found, "a manifest shows what was never sealed there")


def _is_table(content: bytes, shown: bytes, sound: list[tuple[bytes, bytes]]) -> None:
    end = TABLE_TAIL_BYTES + FOOTER_BYTES
    found = any(stored[-end:] == content[-end:] for stored, _ in sound)
    require(found, "a footer opens that was not sealed there")


def _is_figures(content: bytes, shown: bytes, sound: list[tuple[bytes, bytes]]) -> None:
    require(shown in {b"", *(plain for _, plain in sound)}, "figures that were never published")


_RULES: dict[str, Callable[[bytes, bytes, list[tuple[bytes, bytes]]], None]] = {
    "wal": _is_log,
    "manifest": _is_manifest,
    "table": _is_table,
    "LIVE": _is_figures,
}


def _places(content: bytes | bytearray) -> list[int]:
    """Return where records or frames seem to begin."""
    return [at for at in range(0, len(content) - 8, 8) if bytes(content[at : at + 4]) in _MAGICS]


def _move(rng: Random, content: bytearray) -> None:
    """Put a piece where another one was."""
    places = _places(content)
    if len(places) < 2:
        return
    source, target = rng.choice(places), rng.choice(places)
    (size,) = struct.unpack_from("<I", content, source + 4)
    piece = content[source : source + min(size + 80, 2048)]
    content[target : target + len(piece)] = piece


def _resize(rng: Random, content: bytearray) -> None:
    """Let a piece say another size."""
    places = _places(content)
    if places:
        at = rng.choice(places) + 4
        (size,) = struct.unpack_from("<I", content, at)
        struct.pack_into("<I", content, at, mutate_number(rng, size, 32))


def _mend(kind: str, content: bytearray) -> None:
    """Mend the checksum that anybody can compute."""
    if kind == "keys":
        if len(content) > 8:
            struct.pack_into("<Q", content, len(content) - 8, checksum(bytes(content[:-8])))
        return
    start = len(content) - TABLE_TAIL_BYTES if kind == "table" else 0
    if 0 <= start <= len(content) - PREAMBLE_BYTES:
        end = start + _PREAMBLE_CHECKED
        struct.pack_into("<Q", content, end, checksum(bytes(content[start:end])))


TARGETS: tuple[Target, ...] = (SealedTarget(),)
