"""The files by which a process publishes its figures and another one asks for them.

docs/format/live.md describes them. Neither is a part of the database: nothing is read from them but
figures, and nothing is lost with them. What is read from them is hostile all the same.

Thread safety: pure functions.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from holdfast.codec import checksum
from holdfast.engine.latency import LatencyStats
from holdfast.engine.stats import KeyspaceStats, LevelStats, Rates, Stats, WaitStats

LIVE_MAGIC: Final = b"HFlive\x00\x00"
WATCH_MAGIC: Final = b"HFwatch\x00"
VERSION: Final = 1
PAYLOAD_BYTES_MAX: Final = 1 << 20
"""Part of the file format."""
KEYSPACES_MAX: Final = 256
"""The keyspaces with the most bytes are published, and the number of the others."""
NUMBER_MAX: Final = 1 << 64

_LIVE = struct.Struct("<8sIIQQ")
_WATCH = struct.Struct("<8sQQ")
LIVE_HEADER_BYTES: Final = _LIVE.size
WATCH_BYTES: Final = _WATCH.size

_PARTS: dict[str, type[Any]] = {
    "tuple[KeyspaceStats, ...]": KeyspaceStats,
    "tuple[LevelStats, ...]": LevelStats,
    "tuple[LatencyStats, ...]": LatencyStats,
    "tuple[WaitStats, ...]": WaitStats,
    "Rates": Rates,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveFigures:
    """What a process published last."""

    sequence: int
    """Counts what this process published; starts with 1."""
    published: float
    """Seconds since 1970."""
    keyspaces_left_out: int
    stats: Stats


def encode_live(figures: LiveFigures) -> bytes:
    """Return the content of the file. Keyspaces that do not fit are left out, smallest first."""
    keyspaces = sorted(figures.stats.keyspaces, key=lambda keyspace: -keyspace.table_bytes)
    count = min(len(keyspaces), KEYSPACES_MAX)
    while True:
        kept = sorted(keyspaces[:count], key=lambda keyspace: keyspace.name)
        plain = {
            "published": figures.published,
            "keyspaces_left_out": figures.keyspaces_left_out + len(keyspaces) - count,
            "stats": asdict(replace(figures.stats, keyspaces=tuple(kept))),
        }
        payload = json.dumps(plain, separators=(",", ":")).encode()
        if len(payload) <= PAYLOAD_BYTES_MAX:
            break
        count //= 2
    head = LIVE_MAGIC, VERSION, len(payload), figures.sequence
    stored = checksum(_LIVE.pack(*head, 0) + payload)
    return _LIVE.pack(*head, stored) + payload


def decode_live(data: bytes) -> LiveFigures:
    """Return what `encode_live` wrote; bytes behind it are those of an earlier, longer content.

    Raises: ValueError when it is anything else, or of another version.
    """
    if len(data) < _LIVE.size:
        raise ValueError("the file is shorter than its header")
    magic, version, size, sequence, stored = _LIVE.unpack_from(data)
    if magic != LIVE_MAGIC or version != VERSION:
        raise ValueError("the file holds no figures of this version")
    if size > PAYLOAD_BYTES_MAX or size > len(data) - _LIVE.size:
        raise ValueError("the file is shorter than it says")
    payload = data[_LIVE.size : _LIVE.size + size]
    if checksum(_LIVE.pack(magic, version, size, sequence, 0) + payload) != stored:
        raise ValueError("the checksum does not match")
    try:
        plain = json.loads(payload)
    except RecursionError:
        raise ValueError("the figures are nested too deeply") from None
    if not isinstance(plain, dict):
        raise ValueError("the figures are no object")  # noqa: TRY004  of a file, not of a caller
    return LiveFigures(
        sequence=sequence,
        published=_value("float", plain.get("published")),
        keyspaces_left_out=_value("int", plain.get("keyspaces_left_out")),
        stats=_object(Stats, plain.get("stats")),
    )


def encode_watch(asked_us: int) -> bytes:
    """Return the request of somebody who asked at this time, in microseconds since 1970."""
    return _WATCH.pack(WATCH_MAGIC, asked_us, checksum(_WATCH.pack(WATCH_MAGIC, asked_us, 0)))


def decode_watch(data: bytes) -> int:
    """Return the time of a request. Raises: ValueError when it is none."""
    if len(data) != _WATCH.size:
        raise ValueError("a request has another size")
    magic, asked_us, stored = _WATCH.unpack(data)
    if magic != WATCH_MAGIC or stored != checksum(_WATCH.pack(magic, asked_us, 0)):
        raise ValueError("the file holds no request")
    return int(asked_us)


def _object(kind: type[Any], plain: object) -> Any:
    """Return an object of one of the classes of `stats`. Raises: ValueError."""
    if not isinstance(plain, dict):
        raise ValueError(f"a {kind.__name__} is no object")  # noqa: TRY004  as above
    return kind(
        **{entry.name: _value(str(entry.type), plain.get(entry.name)) for entry in fields(kind)}
    )


def _value(annotation: str, found: object) -> Any:
    """Return a value of a field with this annotation. Raises: ValueError for any other one."""
    part = _PARTS.get(annotation)
    if part is not None and annotation.startswith("tuple"):
        if isinstance(found, list):
            return tuple(_object(part, each) for each in found)
    elif part is not None:
        return _object(part, found)
    elif annotation == "bool":
        if isinstance(found, bool):
            return found
    elif annotation == "int":
        if type(found) is int and 0 <= found < NUMBER_MAX:
            return found
    elif annotation == "float":
        # Compared first: JSON has integers that no float holds. And then the float, which may have
        # been rounded up to the limit.
        if type(found) in (int, float) and 0 <= found < NUMBER_MAX:  # type: ignore[operator]  # its type is looked at first
            value = float(found)  # type: ignore[arg-type]  # as above
            if value < NUMBER_MAX:
                return value
    elif isinstance(found, str):
        # A name of a file may have bytes that are no UTF-8, each as a surrogate of its own.
        return found.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    elif found is None and annotation == "str | None":
        return found
    raise ValueError(f"a figure is {found!r:.40}, which is no {annotation}")
