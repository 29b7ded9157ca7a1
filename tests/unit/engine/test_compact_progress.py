"""Goal: whoever waits for a long compaction by hand hears how far it is."""

import pytest

import holdfast
import holdfast.aio
from holdfast.base import KeyspaceSettings
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.testing import sim_loop

SETTINGS = holdfast.DatabaseSettings(
    keyspace=KeyspaceSettings(table_bytes=64 << 10, page_bytes=1024, compression="none")
)


def fill(space, mark):
    space.put_many((b"%05d" % key, mark * 100) for key in range(2000))
    space.flush()


@pytest.fixture
def db():
    with open_database("/db", env=SimEnv(), settings=SETTINGS) as db:
        fill(db, b"a")
        yield db


def test_each_step_tells_its_bytes_and_those_of_all(db):
    fill(db, b"b")
    told = []
    db.compact(progress=lambda size, total: told.append((size, total)))
    sizes, totals = zip(*told, strict=True)
    assert len(set(totals)) == 1
    assert sum(sizes) == totals[0] > 2 * 2000 * 100
    # What lies in the last level already is rewritten in steps of one table.
    told.clear()
    size = db.stats().table_bytes
    db.compact(progress=lambda size, total: told.append((size, total)))
    assert len(told) > 2
    assert sum(size for size, _ in told) == told[0][1] == size


def test_what_comes_down_is_counted_at_each_level(db):
    db.compact()
    fill(db, b"b")
    told = []
    db.compact(progress=lambda size, total: told.append((size, total)))
    assert sum(size for size, _ in told) == told[0][1]


def test_all_keyspaces_and_a_range_have_totals_of_their_own(db):
    other = db.keyspace("other")
    fill(other, b"o")
    told = []
    db.compact(progress=lambda size, total: told.append((size, total)))
    assert sum(size for size, _ in told) == told[0][1]
    whole = told[0][1]
    told.clear()
    other.compact(b"00100", b"00200", progress=lambda size, total: told.append((size, total)))
    assert 0 < sum(size for size, _ in told) == told[0][1] < whole / 4


def test_a_progress_that_fails_ends_the_compaction_and_nothing_else(db):
    fill(db, b"b")

    def fail(size, total):
        raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        db.compact(progress=fail)
    db[b"k"] = b"v"
    db.compact()


def test_with_await():
    machine = SimEnv()
    database = open_database("/db", env=machine, settings=SETTINGS)
    told = []

    async def main():
        async with holdfast.aio.Database(machine, database) as db:
            await db.put_many([(b"%05d" % key, b"v" * 100) for key in range(2000)])
            await db.compact(progress=lambda size, total: told.append((size, total)))
            space = await db.keyspace("other")
            await space.put(b"k", b"v")
            await space.compact(progress=lambda size, total: told.append((size, total)))

    sim_loop.run(machine, main())
    assert len({total for _, total in told}) == 2
