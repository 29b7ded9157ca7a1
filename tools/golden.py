"""Writes golden databases: `python tools/golden.py tests/compat/golden/v1`.

Run once for each format version and never again for an old one: later versions must open what this
one wrote. `closed` was closed cleanly; the process that wrote `crashed` ended without closing it.
A second argument is their `wal_alignment_bytes`. With a third one, `merges`, they have keys with
operands too, with `changed` a keyspace whose settings were changed, with `encrypted` they have the
key that is the bytes 0 to 31.
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

CHANGED = holdfast.KeyspaceSettings(memtable_bytes=8192, page_bytes=1024, restart_interval=4)
"""What the keyspace `plain` gets in databases with `changed`."""


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


def merge(db: holdfast.Database) -> None:
    """Write operands of every function, over values, over nothing, and for readers at a snapshot,
    so that tables and log hold some that are not folded.
    """
    for name in db.keyspaces():
        space = db.keyspace(name)
        space[b"count/0"] = b"100"
        for turn in range(3):
            with db.snapshot():
                for key in range(4):
                    space.add(b"count/%d" % key, turn - key)
                    space.merge(b"high/%d" % key, "max", turn * key, durability="none")
                    space.merge(b"low/%d" % key, "min", turn * key, durability="none")
                    space.merge(b"log/%d" % key, "append", b"turn %d;" % turn, durability="none")
                    space.merge(b"set/%d" % key, "union", [b"%d" % turn, b"%d" % key])
                db.flush()
        space.delete_range(b"count/2", b"count/3")
        space.add(b"count/2")


def content(db: holdfast.Database) -> dict[str, list[list[str]]]:
    """Return all keyspaces as lists of [key, value] in hexadecimal."""
    return {
        name: [[key.hex(), value.hex()] for key, value in db.keyspace(name).items()]
        for name in db.keyspaces()
    }


def main(target: Path, *what: str) -> None:
    """Write `closed`, `crashed` and what both hold."""
    target.mkdir(parents=True)
    with holdfast.open(str(target / "closed"), settings=settings(*what), key=key_of(*what)) as db:
        write(db, *what)
        held = content(db)
    (target / "content.json").write_text(json.dumps(held) + "\n", encoding="ascii")
    crashed = str(target / "crashed")
    subprocess.run([sys.executable, __file__, "--crash", crashed, *what], check=True)


def write(db: holdfast.Database, alignment: str, *others: str) -> None:
    """Write what a database of this kind holds."""
    _ = alignment
    fill(db)
    if "merges" in others:
        merge(db)
    if "changed" in others:
        db.keyspace("plain", settings=CHANGED)


def settings(alignment: str, *others: str) -> holdfast.DatabaseSettings:
    """Return the settings with this alignment of the log."""
    _ = others
    return replace(SETTINGS, wal_alignment_bytes=int(alignment))


def key_of(alignment: str, *others: str) -> bytes | None:
    """Return the key of a database of this kind."""
    _ = alignment
    return bytes(range(32)) if "encrypted" in others else None


def crash(folder: Path, *what: str) -> None:
    """Fill a database and end the process without closing it."""
    write(holdfast.open(str(folder), settings=settings(*what), key=key_of(*what)), *what)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "--crash":
        crash(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main(Path(sys.argv[1]), *(sys.argv[2:] or ["8"]))
