"""Settings: frozen, validated, persisted as text in the manifest and checked at reopen.

`DatabaseSettings` holds for the whole database, `KeyspaceSettings` for one keyspace.
Fields marked *fixed* may not change once the database or keyspace exists. The others are those that
were given last: for a database and its default keyspace to an open, for any keyspace to
`Database.keyspace`. The table in docs/reference/settings.md is generated from this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from holdfast.base.errors import LimitError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

COMPRESSIONS = ("none", "lz4", "zstd")
STRATEGIES = ("leveled", "size-tiered", "time-window", "fifo")
PUBLISHING = ("asked", "always", "never")
DROPPING_STRATEGIES = ("time-window", "fifo")
TIME_UNITS = ("s", "ms", "us", "ns")
PREFIX_BYTES_MAX = 1024
SECONDS_MAX = 100 * 366 * 86_400

TEXT_CHARACTERS_MAX = 16 * KIB
"""The longest text that `from_text` reads. Parsing TOML takes quadratic time at worst."""


def _setting(
    default: int | str,
    doc: str,
    *,
    lower: int = 0,
    upper: int = 0,
    choices: tuple[str, ...] = COMPRESSIONS,
    fixed: bool = False,
    added: bool = False,
) -> Any:
    """Return the field of a setting. One that was `added` to a format is stored only where it is
    not the default, so that older versions read every database that does not use it.
    """
    return field(
        default=default,
        metadata={
            "doc": doc,
            "lower": lower,
            "upper": upper,
            "choices": choices,
            "fixed": fixed,
            "added": added,
        },
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyspaceSettings:
    """What may differ between keyspaces of one database."""

    memtable_bytes: int = _setting(
        32 * MIB,
        "a memtable of this size is frozen and flushed",
        lower=4 * KIB,
        upper=GIB,
    )
    page_bytes: int = _setting(
        16 * KIB,
        "data pages are cut at this size before compression",
        lower=256,
        upper=4 * MIB,
    )
    restart_interval: int = _setting(
        16,
        "entries between two restart points of a page",
        lower=1,
        upper=1024,
    )
    table_bytes: int = _setting(
        32 * MIB,
        "compaction cuts its output tables at about this size",
        lower=4 * KIB,
        upper=4 * GIB,
    )
    filter_bits_per_key: int = _setting(
        10,
        "bits of bloom filter for each key; 0 writes no filter",
        lower=0,
        upper=64,
    )
    prefix_bytes: int = _setting(
        0,
        "filters of new tables also hold the first so many bytes of each key, and scans within one "
        "such prefix skip the tables that lack it; 0 holds none",
        upper=PREFIX_BYTES_MAX,
        added=True,
    )
    compression: str = _setting(
        "lz4",
        "compression of all levels but the last: none, lz4 or zstd",
    )
    compression_last: str = _setting(
        "zstd",
        "compression of the last level: none, lz4 or zstd",
    )
    level0_tables: int = _setting(
        4,
        "level 0 is compacted when it has this many tables; of the strategies by size and by time, "
        "how many sorted runs of similar size are merged together",
        lower=1,
        upper=64,
    )
    level1_bytes: int = _setting(
        128 * MIB,
        "target size of level 1",
        lower=4 * KIB,
        upper=TIB,
    )
    level_ratio: int = _setting(
        10,
        "each level's target is this many times the one above",
        lower=2,
        upper=100,
    )
    compaction: str = _setting(
        "leveled",
        "the strategy: leveled, size-tiered, time-window or fifo",
        choices=STRATEGIES,
        fixed=True,
        added=True,
    )
    window_seconds: int = _setting(
        3600,
        "time-window: how much time of keys is merged together and dropped together",
        lower=1,
        upper=SECONDS_MAX,
        fixed=True,
        added=True,
    )
    key_time_unit: str = _setting(
        "us",
        "time-window: the unit since 1970 of the big-endian time in the first 8 bytes of each key: "
        "s, ms, us or ns",
        choices=TIME_UNITS,
        fixed=True,
        added=True,
    )
    retention_seconds: int = _setting(
        0,
        "time-window and fifo: older windows, or tables, are dropped as a whole; 0 keeps them",
        upper=SECONDS_MAX,
        added=True,
    )
    retention_bytes: int = _setting(
        0,
        "time-window and fifo: the oldest windows, or tables, are dropped while all tables take "
        "more; 0 keeps them",
        upper=1024 * TIB,
        added=True,
    )

    def __post_init__(self) -> None:
        _validate(self)
        if self.compaction in DROPPING_STRATEGIES:
            return
        for name in ("retention_seconds", "retention_bytes"):
            if getattr(self, name):
                raise LimitError(
                    f"{name} is {getattr(self, name)}; the strategy {self.compaction} drops "
                    f"nothing that was not deleted, only {' and '.join(DROPPING_STRATEGIES)} do"
                )

    def check_kept(self, given: KeyspaceSettings) -> None:
        """Check settings that are given for a keyspace that has these. Raises: LimitError when a
        fixed one differs.
        """
        for entry in fields(self):
            kept, wanted = getattr(self, entry.name), getattr(given, entry.name)
            if entry.metadata["fixed"] and wanted != kept:
                raise LimitError(
                    f"{entry.name} is {kept!r} since the keyspace was created and cannot become "
                    f"{wanted!r}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseSettings:
    """What holds for a whole database."""

    memory_bytes: int = _setting(
        256 * MIB,
        "one budget for memtables, data pages, indexes and filters together",
        lower=64 * KIB,
        upper=16 * TIB,
    )
    wal_segment_bytes: int = _setting(
        16 * MIB,
        "size of a preallocated WAL segment",
        lower=4 * KIB,
        upper=GIB,
    )
    wal_bytes_max: int = _setting(
        64 * MIB,
        "memtables are flushed so that recovery never replays more than about this",
        lower=8 * KIB,
        upper=TIB,
    )
    wal_keep_bytes: int = _setting(
        0,
        "so much of the log is kept for `changes()` behind what recovery needs, in whole segments",
        lower=0,
        upper=1024 * TIB,
    )
    wal_alignment_bytes: int = _setting(
        8,
        "records of log and manifest start at multiples of this, a power of two; "
        "the sector, 512 or 4096, of a disk that may lose a sector which is written in part",
        lower=8,
        upper=4096,
        fixed=True,
    )
    sync_interval_ms: int = _setting(
        100,
        "durability 'interval' syncs at least this often",
        lower=1,
        upper=3_600_000,
    )
    background_bytes_per_second: int = _setting(
        0,
        "flushes and compactions together write tables at about this rate while writers need not "
        "wait for them, and faster as that comes near; 0 is no limit",
        upper=TIB,
        added=True,
    )
    publish: str = _setting(
        "asked",
        "the process that has the database open publishes its figures for `holdfast stats --watch` "
        "when it is asked to, always or never",
        choices=PUBLISHING,
        added=True,
    )
    max_transaction_age: int = _setting(
        0,
        "seconds after which a transaction or snapshot is ended, so that it holds back no versions "
        "any more; 0 never ends one",
        upper=SECONDS_MAX,
        added=True,
    )
    max_held_bytes: int = _setting(
        0,
        "a transaction or snapshot is ended when this many bytes were written since it began, as "
        "old versions may be kept for it up to that; 0 never ends one",
        upper=1024 * TIB,
        added=True,
    )
    keyspace: KeyspaceSettings = field(
        default_factory=KeyspaceSettings,
        metadata={"doc": "settings of a keyspace that is created without its own", "fixed": False},
    )

    def __post_init__(self) -> None:
        _validate(self)
        if self.wal_alignment_bytes & (self.wal_alignment_bytes - 1):
            raise LimitError(
                f"wal_alignment_bytes is {self.wal_alignment_bytes}; it must be a power of two"
            )

    def to_text(self) -> str:
        """Return the settings as TOML."""
        plain = stored_settings(self)
        del plain["keyspace"]
        return _table(plain) + "\n[keyspace]\n" + _table(stored_settings(self.keyspace))

    @classmethod
    def from_text(cls, text: str) -> DatabaseSettings:
        """Return the settings that `to_text` wrote.

        Raises: LimitError for an unknown name or a value out of range; TypeError for a value of
        another type; ValueError when the text is not TOML or too long.
        """
        if len(text) > TEXT_CHARACTERS_MAX:
            raise ValueError(
                f"the settings have {len(text)} characters; the limit is {TEXT_CHARACTERS_MAX}"
            )
        return _database_settings_from(text)


@lru_cache(maxsize=16)
def _database_settings_from(text: str) -> DatabaseSettings:
    """Return the settings of a text. An open and a verify read the same one several times."""
    import tomllib  # noqa: PLC0415  dear, and needed only where a database is opened

    try:
        plain = tomllib.loads(text)
    except RecursionError:
        raise ValueError("the settings are nested too deeply") from None
    keyspace = plain.pop("keyspace", {})
    if not isinstance(keyspace, dict):
        raise LimitError("keyspace is a table of settings")
    _reject_unknown(DatabaseSettings, plain)
    return DatabaseSettings(keyspace=keyspace_settings_from(keyspace), **plain)


def stored_settings(settings: KeyspaceSettings | DatabaseSettings) -> dict[str, Any]:
    """Return the names and values of what is stored of settings."""
    return {
        entry.name: getattr(settings, entry.name)
        for entry in fields(settings)
        if not entry.metadata.get("added") or getattr(settings, entry.name) != entry.default
    }


def keyspace_settings_from(plain: Mapping[str, Any]) -> KeyspaceSettings:
    """Return keyspace settings from a mapping of names to values. Raises: LimitError, TypeError."""
    _reject_unknown(KeyspaceSettings, plain)
    return KeyspaceSettings(**plain)


def _table(plain: Mapping[str, int | str]) -> str:
    lines = []
    for name, value in plain.items():
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        lines.append(f"{name} = {shown}\n")
    return "".join(lines)


def _reject_unknown(
    kind: type[KeyspaceSettings | DatabaseSettings], plain: Mapping[str, object]
) -> None:
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(plain) - known)
    if unknown:
        raise LimitError(
            f"unknown setting {unknown[0]!r} for {kind.__name__}; "
            f"known are {', '.join(sorted(known))}"
        )


def _validate(settings: KeyspaceSettings | DatabaseSettings) -> None:
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if entry.type == "int":
            if type(value) is not int:
                raise TypeError(f"{entry.name} is an int, not {type(value).__name__}")
            lower, upper = entry.metadata["lower"], entry.metadata["upper"]
            if not lower <= value <= upper:
                raise LimitError(
                    f"{entry.name} is {value}; it must lie between {lower} and {upper}"
                )
        elif entry.type == "str":
            choices = entry.metadata["choices"]
            if value not in choices:
                raise LimitError(
                    f"{entry.name} is {value!r}; it must be one of {', '.join(choices)}"
                )
        elif not isinstance(value, KeyspaceSettings):
            raise TypeError(f"{entry.name} is a KeyspaceSettings, not {type(value).__name__}")
