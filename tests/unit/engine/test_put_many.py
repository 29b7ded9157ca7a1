"""`put_many`: one transaction, which an unsynced one is without a commit group where it may."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import holdfast
from holdfast.base import PURE
from holdfast.env import SimEnv


@pytest.mark.skipif(PURE, reason="the plain twin commits by a group each time")
@pytest.mark.parametrize("count", [1, 3])
def test_an_unsynced_one_waits_for_nobody(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(b"k%d" % number, b"v%d" % number) for number in range(count)]
    with holdfast.open("/db", env=SimEnv(1)) as database:
        before = database.read_point()[1]
        with monkeypatch.context() as patch:
            patch.setattr(database._engine.write_path, "commit", None)
            database.put_many(pairs, durability="none")
        assert dict(database.items()) == dict(pairs)
        assert database.read_point()[1] == before + count
        database.put_many(dict(pairs), durability="commit")
        assert dict(database.items()) == dict(pairs)


@pytest.mark.parametrize("durability", ["none", "interval", "commit", None])
def test_what_is_refused_is_not_written(durability: str | None) -> None:
    with holdfast.open("/db", env=SimEnv(1)) as database:
        dropped = database.keyspace("dropped")
        database.drop_keyspace("dropped")
        for pairs in ([], [(b"k", b"v")], [(b"k", b"v"), (b"l", b"w")]):
            with pytest.raises(ValueError, match="durability"):
                database.put_many(pairs, durability="some")
            with pytest.raises(holdfast.DatabaseClosedError):
                dropped.put_many(pairs, durability=durability)
        with pytest.raises(TypeError):
            database.put_many([(b"k", b"v"), ("l", b"w")], durability=durability)  # type: ignore[list-item]
        assert not dict(database.items())
    with pytest.raises(holdfast.DatabaseClosedError):
        database.put_many([(b"k", b"v")], durability=durability)


def test_one_of_many_threads_is_seen_whole(tmp_path: Path) -> None:
    keys = [b"a", b"b", b"c"]
    with holdfast.open(tmp_path / "db") as database:
        database.put_many([(key, b"0") for key in keys])

        def write(thread: int) -> None:
            for number in range(400):
                value = b"%d-%d" % (thread, number)
                how = ("none", "interval", "none", "commit")[number % 4]
                database.put_many(((key, value) for key in keys), durability=how)

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert len(set(database.get_many(keys))) == 1
        for thread in threads:
            thread.join()
        assert len({database[key] for key in keys}) == 1
        last = database.read_point()[1]
        assert last == 3 * (4 * 400 + 1)
    with holdfast.open(tmp_path / "db", read_only=True) as database:
        assert len({database[key] for key in keys}) == 1
