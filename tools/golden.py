"""Writes golden databases: `python tools/golden.py tests/compat/golden/v1`.

Run once for each format version and never again for an old one: later versions must open what this
one wrote. `closed` was closed cleanly; the process that wrote `crashed` ended without closing it.
A second argument is their `wal_alignment_bytes`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import holdfast

SETTINGS = holdfast.DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=8192,
    wal_bytes_max=65536,
    keyspace=holdfast.KeyspaceSettings(
        memtable_bytes=4096, page_bytes=512, table_bytes=8192, level1_bytes=16384, level0_tables=2
    ),
)


def fill(db: holdfast.Database) -> None:
    """Write something of everything: levels, compressions, range deletes, keyspaces."""
    plain = db.keyspace(
        "plain",
        settings=holdfast.KeyspaceSettings(
            memtable_bytes=4096, page_bytes=256, compression="none", compression_last="none"
        ),
    )
    dropped = db.keyspace("dropped")
    for step in range(400):
        db[b"key/%04d" % (step * 7 % 400)] = b"value %d " % step * (step % 9)
        plain.put(b"\x00\xff%d" % (step % 50), b"%d" % step, durability="none")
        if step % 100 == 50:
            db.delete_range(b"key/%04d" % step, b"key/%04d" % (step + 20))
            dropped[b"gone"] = b"soon"
    del db[b"key/0001"]
    db.compact()
    db.drop_keyspace("dropped")
    db.put_many((b"late/%03d" % index, b"l" * index) for index in range(60))
    db.delete_range(b"late/010", b"late/020")
    plain[b""] = b"the empty key"
    db[b"last"] = b""


def content(db: holdfast.Database) -> dict[str, list[list[str]]]:
    """Return all keyspaces as lists of [key, value] in hexadecimal."""
    return {
        name: [[key.hex(), value.hex()] for key, value in db.keyspace(name).items()]
        for name in db.keyspaces()
    }


def main(target: Path, alignment: str) -> None:
    """Write `closed`, `crashed` and what both hold."""
    target.mkdir(parents=True)
    with holdfast.open(str(target / "closed"), settings=settings(alignment)) as db:
        fill(db)
        held = content(db)
    (target / "content.json").write_text(json.dumps(held) + "\n", encoding="ascii")
    crashed = str(target / "crashed")
    subprocess.run([sys.executable, __file__, "--crash", crashed, alignment], check=True)


def settings(alignment: str) -> holdfast.DatabaseSettings:
    """Return the settings with this alignment of the log."""
    return replace(SETTINGS, wal_alignment_bytes=int(alignment))


def crash(folder: Path, alignment: str) -> None:
    """Fill a database and end the process without closing it."""
    fill(holdfast.open(str(folder), settings=settings(alignment)))
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "--crash":
        crash(Path(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "8")
