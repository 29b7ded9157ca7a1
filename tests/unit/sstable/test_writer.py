"""A table writer leaves either a whole, synced table or nothing."""

from __future__ import annotations

import pytest

from holdfast.base import PUT, KeyspaceSettings
from holdfast.codec import Compression
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.sstable import TableWriter
from holdfast.sstable.writer import DRAIN_BYTES
from tests.format.plain_table import read_table

FILE_ID = bytes(range(16))


def make(env: SimEnv | FaultEnv, path: str = "db/00000007.table") -> TableWriter:
    return TableWriter(
        env, path, 7, FILE_ID, settings=KeyspaceSettings(), compression=Compression.NONE
    )


@pytest.fixture
def env() -> SimEnv:
    env = SimEnv()
    env.make_dir("db", site="test")
    return env


def contents(env: SimEnv, path: str = "db/00000007.table") -> bytes:
    file = env.open(path)
    return file.read_at(0, file.size())


def test_a_finished_table_is_on_disk_and_described(env: SimEnv) -> None:
    with make(env) as writer:
        writer.add(b"a", 3, PUT, b"1")
        writer.add(b"b", 2, PUT, b"2")
        writer.add_range_tombstone(b"c", b"d", 4)
        info = writer.finish()
    data = contents(env)
    assert writer.bytes_written == info.size_bytes == len(data)
    assert (info.number, info.file_id, info.entry_count) == (7, FILE_ID, 2)
    table = read_table(data)
    assert [key for key, _, _ in table.entries] == [b"a", b"b"]
    assert len(table.tombstones) == 1


def test_the_file_is_synced_last_and_its_folder_is_left_to_the_caller(env: SimEnv) -> None:
    faulty = FaultEnv(env, [])
    with make(faulty) as writer:
        writer.add(b"a", 3, PUT, b"1")
        writer.finish()
    sites = [operation.site for operation in env.op_log if operation.site.startswith("table")]
    assert sites == ["table.write.create", "table.write.append", "table.write.sync"]
    assert not any(operation.kind == "sync_dir" for operation in env.op_log)


def test_output_is_written_in_pieces_of_about_a_mebibyte(env: SimEnv) -> None:
    with make(env) as writer:
        for index in range(400):
            writer.add(b"%06d" % index, 1, PUT, bytes(10_000))
        info = writer.finish()
    writes = [operation for operation in env.op_log if operation.site == "table.write.append"]
    assert info.size_bytes // DRAIN_BYTES <= len(writes) <= info.size_bytes // DRAIN_BYTES + 4
    assert len(read_table(contents(env)).entries) == 400


def test_a_finished_writer_has_no_builder_any_more(env: SimEnv) -> None:
    """A compaction keeps the writers of all its tables until the last of them is done."""
    with make(env) as writer:
        writer.add(b"k", 5, PUT, b"v")
        writer.finish()
        assert not hasattr(writer, "builder")
        with pytest.raises(ValueError, match="is finished"):
            writer.add(b"l", 5, PUT, b"v")


def test_a_huge_value_is_written_in_pieces_too(env: SimEnv) -> None:
    with make(env) as writer:
        writer.add(b"k", 1, PUT, b"v" * (5 * DRAIN_BYTES))
        writer.finish()
    assert sum(operation.site == "table.write.append" for operation in env.op_log) == 6
    assert read_table(contents(env)).entries[0][2] == b"v" * (5 * DRAIN_BYTES)


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_failed_call_kills_the_writer_and_leaves_no_file(env: SimEnv, kind: str) -> None:
    faulty = FaultEnv(env, [FaultRule(kind=kind, partial=3 if kind == "write" else None)])
    with pytest.raises(OSError), make(faulty) as writer:
        writer.add(b"a", 1, PUT, b"v")
        writer.finish()
    assert env.list_dir("db") == []
    for call in (lambda: writer.add(b"b", 1, PUT, b""), writer.drain, writer.finish):
        with pytest.raises(ValueError, match="abandoned"):
            call()


def test_a_failed_sync_is_not_tried_again(env: SimEnv) -> None:
    faulty = FaultEnv(env, [FaultRule(kind="sync")])
    writer = make(faulty)
    writer.add(b"a", 1, PUT, b"v")
    with pytest.raises(OSError):
        writer.finish()
    with pytest.raises(ValueError, match="failed"):
        writer.finish()
    writer.abandon()
    assert env.list_dir("db") == []


def test_an_exception_in_the_block_removes_even_a_finished_table(env: SimEnv) -> None:
    with pytest.raises(KeyError), make(env) as writer:
        writer.add(b"a", 1, PUT, b"v")
        writer.finish()
        raise KeyError
    assert env.list_dir("db") == []


def test_leaving_the_block_unfinished_removes_the_file(env: SimEnv) -> None:
    with make(env) as writer:
        writer.add(b"a", 1, PUT, b"v")
    assert env.list_dir("db") == []
    writer.abandon()


def test_an_unlink_that_fails_does_not_hide_the_error(env: SimEnv) -> None:
    faulty = FaultEnv(env, [FaultRule(kind="unlink")])
    with pytest.raises(KeyError), make(faulty):
        raise KeyError
    assert env.list_dir("db") == ["00000007.table"]


def test_an_empty_table_is_refused_and_may_still_be_filled(env: SimEnv) -> None:
    with make(env) as writer:
        with pytest.raises(ValueError, match="at least one"):
            writer.finish()
        writer.add(b"a", 1, PUT, b"v")
        writer.finish()
    assert env.list_dir("db") == ["00000007.table"]


def test_a_taken_name_is_an_error_and_the_file_there_stays(env: SimEnv) -> None:
    with make(env) as writer:
        writer.add(b"a", 1, PUT, b"v")
        writer.finish()
    with pytest.raises(FileExistsError):
        make(env)
    assert len(read_table(contents(env)).entries) == 1
