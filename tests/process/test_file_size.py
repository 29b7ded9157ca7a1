"""A limit on the size of files is a want of room: nothing is lost, and writing goes on above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.scripts import run


@pytest.mark.parametrize("limit", [100, 4096, 6_001, 20_001, 66_000])
@pytest.mark.parametrize("durability", ["commit", "none"])
def test_a_limit_on_the_size_of_files_is_a_want_of_room(
    tmp_path: Path, limit: int, durability: str
) -> None:
    """It poisoned the database."""
    run(
        """
import resource
from holdfast import DiskFullError
limit, durability = int(sys.argv[2]), sys.argv[3]
database = holdfast.open(path, settings=TINY)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
kept, number, refused = {}, 0, 0
database[b"first"] = kept[b"first"] = b"1"

def write(count):
    global number, refused
    for _ in range(count):
        key, value = b"key %06d" % number, b"%06d" % number * 50
        number += 1
        try:
            database.put(key, value, durability=durability)
        except DiskFullError:
            refused += 1
        else:
            kept[key] = value

def synced():
    try:
        database.sync()
    except DiskFullError:
        return False
    return True

for _ in range(2):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    for _ in range(100):
        write(20)
        if refused or not synced():
            break
    else:
        # Nothing that is larger had to be written.
        assert limit > 65536
    assert list(database.items()) == sorted(kept.items())
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    before, refused = len(kept), 0
    write(100)
    assert len(kept) == before + 100, refused
    assert synced()
    assert list(database.items()) == sorted(kept.items())
database.close()
with holdfast.open(path, settings=TINY) as database:
    assert list(database.items()) == sorted(kept.items())
    assert database.verify().ok
""",
        tmp_path / "db",
        limit,
        durability,
    )
