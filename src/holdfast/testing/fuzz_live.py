"""The fuzz target of the files by which a process publishes its figures: LIVE and WATCH.

Checksums and sizes are mended after most mutations. What is decoded is also shown as
`holdfast stats --watch` shows it, since names and causes in it come from another process.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, ClassVar

import holdfast
from holdfast.cli.stats_table import live_lines
from holdfast.codec import checksum
from holdfast.engine.live_format import (
    LiveFigures,
    decode_live,
    decode_watch,
    encode_live,
    encode_watch,
)
from holdfast.env import SimEnv
from holdfast.testing.fuzz_mutate import interesting, mutate_number, mutate_often
from holdfast.testing.fuzz_oracle import Target, attempt, require

_LIVE = struct.Struct("<8sIIQQ")
_WATCH = struct.Struct("<8sQQ")
_MEBIBYTE = 1 << 20
_INPUT_BYTES_MAX = 1 << 15

_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0.5, -0.0, 1 << 64, (1 << 64) - 1, 10**400, float("inf"), float("nan"),
    "", "\ud800", "\udcff", "\x1b[2J", "a\nb", "\u20ac", [], {}, [[]], "x" * 3000,
)  # fmt: skip
"""What JSON can have in the place of a figure or a name; its nan and infinity are Python's own."""


class LiveTarget:
    """Input: the content of LIVE; also taken as that of WATCH."""

    name: ClassVar[str] = "live"
    traced: ClassVar[tuple[str, ...]] = ("engine.live_format", "cli.stats_table")

    def seeds(self) -> Iterable[bytes]:
        with holdfast.open("/db", env=SimEnv(1)) as db:
            yield encode_live(_figures(db, 0))
            db[b"key"] = b"value"
            db.keyspace("\u20ac")[b"key"] = b"value"
            db.flush()
            yield encode_live(_figures(db, 3))
        yield encode_watch(1_795_305_600_000_000)

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if len(data) < _LIVE.size or rng.random() < 0.1:
            return _watch(rng, mutate_often(rng, data, other)[:_INPUT_BYTES_MAX])
        head = list(_LIVE.unpack_from(data))
        payload = data[_LIVE.size :]
        choice = rng.random()
        if choice < 0.15:
            at = rng.randrange(1, 4)
            head[at] = mutate_number(rng, head[at], 64 if at == 3 else 32)
            return sealed(head, payload)
        if choice < 0.4:
            payload = mutate_often(rng, payload, other[_LIVE.size :])[:_INPUT_BYTES_MAX]
        else:
            payload = _changed(rng, payload)
        head[2] = len(payload)
        return sealed(head, payload)

    def run(self, data: bytes) -> Iterable[object]:
        asked = attempt(ValueError, decode_watch, data)
        if not asked.is_error:
            require(encode_watch(asked.value) == data, "a request is written otherwise")
        found = attempt(ValueError, decode_live, data)
        if found.is_error:
            return [asked.feature, found.feature]
        again = encode_live(found.value)
        require(encode_live(decode_live(again)) == again, "figures come back as others")
        lines = live_lines(found.value, defaultdict(float))
        require(all(line.isprintable() for line in lines), "a terminal would obey a name")
        text = "".join(lines).encode()
        return ["ok", len(lines), len(text).bit_length()]

    def memory_max(self, data: bytes) -> int:
        return 400 * len(data) + 8 * _MEBIBYTE


def _figures(db: holdfast.Database, keyspaces_left_out: int) -> LiveFigures:
    return LiveFigures(
        sequence=1, published=1.5, keyspaces_left_out=keyspaces_left_out, stats=db.stats()
    )


def sealed(head: list[Any], payload: bytes) -> bytes:
    """Return a file with a checksum that matches, whatever its header says."""
    magic, version, size, sequence, _ = head
    covered = _LIVE.pack(magic, version, size, sequence, 0) + payload[:size]
    return _LIVE.pack(magic, version, size, sequence, checksum(covered)) + payload


def _watch(rng: Random, data: bytes) -> bytes:
    """Return the input, or a request that has its checksum mended."""
    if len(data) != _WATCH.size or rng.random() < 0.3:
        return data
    magic, asked_us, _ = _WATCH.unpack(data)
    return _WATCH.pack(magic, asked_us, checksum(_WATCH.pack(magic, asked_us, 0)))


def _changed(rng: Random, payload: bytes) -> bytes:
    """Return figures of which some have another value or are not there."""
    try:
        plain = json.loads(payload)
    except (ValueError, RecursionError):
        return payload
    places = list(_places(plain))
    for _ in range(1 + rng.getrandbits(1)):
        if not places:
            break
        container, key = rng.choice(places)
        if rng.random() < 0.1:
            # It may be gone already.
            container.pop(key, None) if isinstance(container, dict) else container.clear()
        elif isinstance(container, dict) or key < len(container):
            value = interesting(rng) if rng.random() < 0.3 else rng.choice(_VALUES)
            container[key] = value
    return json.dumps(plain, separators=(",", ":")).encode()[:_INPUT_BYTES_MAX]


def _places(plain: object) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a value as its container and its key or index."""
    if isinstance(plain, dict | list):
        for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
            yield plain, key
            yield from _places(value)


TARGETS: tuple[Target, ...] = (LiveTarget(),)
