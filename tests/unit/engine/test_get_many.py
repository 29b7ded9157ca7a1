"""`get_many` goes over its keys in groups, and says for each what `get` says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import holdfast


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 33, 500])
def test_groups_of_every_size(tmp_path: Path, count: int) -> None:
    with holdfast.open(str(tmp_path / "db")) as database:
        database.put_many([(b"%05d" % n, b"old%d" % n) for n in range(500)])
        database.flush()
        database.put_many([(b"%05d" % n, b"new%d" % n) for n in range(0, 500, 3)])
        database.flush()
        database.put(b"00001", b"newest", durability="none")
        del database[b"00002"]
        model = {b"%05d" % n: b"%s%d" % (b"old" if n % 3 else b"new", n) for n in range(500)}
        model[b"00001"] = b"newest"
        del model[b"00002"]
        keys = [b"%05d" % (n * 7 % 510) for n in range(count)]
        # The first rounds read the pages, the later ones go through their directories.
        for _ in range(5):
            assert database.get_many(keys) == [model.get(key) for key in keys]
            assert [database.get(key) for key in keys] == [model.get(key) for key in keys]


def test_a_pool_that_is_too_small_for_the_pages(tmp_path: Path, rng: random.Random) -> None:
    """A data page that went may have left its node to an index page, whose directory is of another
    kind. With the address sanitizer a read behind it stops the run.
    """
    # What all keys of a table share says how many bits of a slot a lookup would take for a number.
    model = {b"one/thing/of/%02d/%09d" % (n % 7, n): b"%d" % n * 20 for n in range(40_000)}
    with holdfast.open(
        str(tmp_path / "db"),
        settings=holdfast.DatabaseSettings(
            memory_bytes=1 << 20,
            keyspace=holdfast.KeyspaceSettings(memtable_bytes=128 << 10, page_bytes=4096),
        ),
    ) as database:
        database.put_many(model.items())
        database.flush()
        present = list(model)
        for _ in range(3_000):
            keys = rng.choices(present, k=16)
            assert database.get_many(keys) == [model[key] for key in keys]
