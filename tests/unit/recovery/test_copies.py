"""Copies that a repair or a backup makes: whole and durable, or marked as unfinished."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.base import DatabaseLockedError, marks_seen
from holdfast.env import SimEnv, crash_states
from holdfast.recovery.set_aside import PIECE_BYTES, copy_aside, copy_file
from holdfast.recovery.unfinished import (
    UNFINISHED,
    check_free,
    claimed_folder,
    clear_unfinished,
    is_unfinished,
    mark_finished,
    mark_unfinished,
)

FOLDER = "/db"
SYNCED = "repair.aside.end_sync"


@pytest.fixture
def env() -> SimEnv:
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    env.sync_dir("/", site="test")
    return env


def put(env: SimEnv, path: str, content: bytes = b"") -> None:
    file = env.create(path, site="test")
    file.write_at(0, content, site="test")
    file.sync(site="test")
    file.close()
    env.sync_dir(path.rpartition("/")[0], site="test")


def get(env: SimEnv, path: str) -> bytes:
    file = env.open(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def least(env: SimEnv) -> SimEnv:
    """What is certainly left when the power goes now."""
    env.cut_power()
    (state,) = crash_states(env, ["none"])
    left: SimEnv = state.build()
    return left


def test_originals_are_copied_durably_and_stay(env: SimEnv) -> None:
    content = {
        "00000001.wal": b"one" + bytes(99),
        "00000002.table": bytes(range(256)),
        "empty": b"",
    }
    for name, data in content.items():
        put(env, f"{FOLDER}/{name}", data)
    assert copy_aside(env, FOLDER, list(content)) == f"{FOLDER}/damaged-1"
    assert env.unreturned() == []
    left = least(env)
    assert sorted(left.list_dir(f"{FOLDER}/damaged-1")) == sorted(content)
    for name, data in content.items():
        assert get(left, f"{FOLDER}/damaged-1/{name}") == data
        assert get(left, f"{FOLDER}/{name}") == data


def test_each_repair_has_a_folder_of_its_own(env: SimEnv) -> None:
    put(env, f"{FOLDER}/a", b"1")
    for name in ("damaged-3", "damaged-07", "damaged-x"):
        env.make_dir(f"{FOLDER}/{name}", site="test")
        put(env, f"{FOLDER}/{name}/kept", b"")
    assert copy_aside(env, FOLDER, ["a"]) == f"{FOLDER}/damaged-4"
    assert copy_aside(env, FOLDER, ["a"]) == f"{FOLDER}/damaged-5"
    env.make_dir(f"{FOLDER}/damaged-2", site="test")
    assert copy_aside(env, FOLDER, ["a"]) == f"{FOLDER}/damaged-2", "an empty one"
    assert env.list_dir(f"{FOLDER}/damaged-3") == ["kept"]


def test_a_folder_that_a_crash_left_unfinished_is_begun_anew(env: SimEnv) -> None:
    put(env, f"{FOLDER}/a", b"1")
    env.make_dir(f"{FOLDER}/damaged-1", site="test")
    for name in (UNFINISHED, "b", "anything"):
        put(env, f"{FOLDER}/damaged-1/{name}", b"old")
    assert copy_aside(env, FOLDER, ["a"]) == f"{FOLDER}/damaged-1"
    assert env.list_dir(f"{FOLDER}/damaged-1") == ["a"]


def test_until_all_is_durable_the_folder_says_so(env: SimEnv) -> None:
    names = [f"0000000{number}.wal" for number in range(1, 4)]
    for name in names:
        put(env, f"{FOLDER}/{name}", name.encode())
    before = env.op_count
    copy_aside(env, FOLDER, names)
    sites = [op.site for op in env.op_log[before:]]
    begun, end = sites.index("repair.aside.begin"), sites.index("repair.aside.end")
    # The name of the folder, then the mark, then the copies, then nothing but that they are whole.
    assert sites[:begun] == ["repair.aside.folder", "repair.aside.parent.folder_sync"]
    assert sites[begun + 1] == "repair.aside.begin_sync"
    assert sites[begun:end].count("repair.copy.sync") == len(names)
    assert sites[end - 1 :] == ["repair.aside.folder_sync", "repair.aside.end", SYNCED]


def test_zeros_are_not_written(env: SimEnv) -> None:
    data = b"a" + bytes(3 * PIECE_BYTES) + b"\x01" * PIECE_BYTES + bytes(10)
    put(env, f"{FOLDER}/a", data)
    before = env.op_count
    copy_file(env, f"{FOLDER}/a", f"{FOLDER}/b")
    assert get(env, f"{FOLDER}/b") == data
    writes = [op for op in env.op_log[before:] if op.kind == "write"]
    assert len(writes) == 3
    assert env.unreturned() == []
    # A file that is nothing but zeros has its length.
    put(env, f"{FOLDER}/zeros", bytes(100))
    copy_file(env, f"{FOLDER}/zeros", f"{FOLDER}/c")
    assert get(env, f"{FOLDER}/c") == bytes(100)


def test_a_file_that_shrinks_meanwhile_is_no_copy(env: SimEnv) -> None:
    put(env, f"{FOLDER}/a", b"1" * 100)
    real = env.open

    class Shrinking:
        def __getattr__(self, name: str) -> Any:
            return getattr(env, name)

        def open(self, path: str) -> Any:
            file = real(path)

            class Shrunk:
                name = path

                def size(self) -> int:
                    return 100

                def read_at(self, offset: int, count: int) -> bytes:
                    return b"1" * 10 if offset == 0 else b""

                def close(self) -> None:
                    file.close()

            return Shrunk()

    machine: Any = Shrinking()
    with pytest.raises(OSError, match="/db/a ends at byte 10, before its end"):
        copy_file(machine, f"{FOLDER}/a", f"{FOLDER}/b")
    assert env.unreturned() == []


def test_the_mark_is_durable_and_so_is_its_removal(env: SimEnv) -> None:
    mark_unfinished(env, FOLDER, site="repair.target")
    env.sync_dir("/", site="test")
    before = env.op_count
    assert least(env).list_dir(FOLDER) == [UNFINISHED]
    assert before == env.op_count
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    env.sync_dir("/", site="test")
    mark_unfinished(env, FOLDER, site="repair.target")
    mark_finished(env, FOLDER, site="repair.target")
    assert least(env).list_dir(FOLDER) == []


def test_what_was_left_is_removed_and_the_mark_stays(env: SimEnv) -> None:
    for name in (UNFINISHED, "LOCK", "00000001.wal", "00000002.table"):
        put(env, f"{FOLDER}/{name}", b"x")
    clear_unfinished(env, FOLDER, env.list_dir(FOLDER), site="backup")
    assert sorted(env.list_dir(FOLDER)) == ["LOCK", UNFINISHED]
    # Whoever goes on makes it durable.
    mark_unfinished(env, FOLDER, site="backup")
    assert env.op_log[-1].site == "backup.begin_sync"


@pytest.mark.parametrize(
    ("names", "is_left"),
    [
        ([UNFINISHED], True),
        ([UNFINISHED, "LOCK", "00000001.wal", "KEYS.1", "00000003.manifest"], True),
        (["00000001.wal"], False),
        ([UNFINISHED, "CURRENT.1.3"], False),
        ([UNFINISHED, "notes.txt"], False),
    ],
)
def test_only_what_a_copy_makes_is_taken_for_one(
    env: SimEnv, names: list[str], is_left: bool
) -> None:
    assert is_unfinished(names) is is_left
    for name in names:
        put(env, f"{FOLDER}/{name}")
    if is_left:
        with claimed_folder(env, FOLDER, site="backup"):
            assert sorted(env.list_dir(FOLDER)) == ["LOCK", UNFINISHED]
        assert "recovery.unfinished_cleared" in marks_seen()
        assert env.list_dir(FOLDER) == [UNFINISHED]
    else:
        with pytest.raises(FileExistsError, match="is not empty: it holds"):
            check_free(env, FOLDER)
        with (
            pytest.raises(FileExistsError),
            claimed_folder(env, FOLDER, site="backup"),
        ):
            pass
        assert sorted(env.list_dir(FOLDER)) == sorted(names)


def test_one_copy_at_a_time_is_made_into_a_folder(env: SimEnv) -> None:
    check_free(env, "/absent")
    with (
        claimed_folder(env, FOLDER, site="backup"),
        pytest.raises(DatabaseLockedError),
        claimed_folder(env, FOLDER, site="backup"),
    ):
        pass
    with claimed_folder(env, FOLDER, site="backup"):
        pass


def test_a_copy_that_came_to_its_end_while_the_lock_was_waited_for_is_kept(env: SimEnv) -> None:
    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(env, name)

        def lock_file(self, path: str) -> Any:
            put(env, f"{FOLDER}/CURRENT.1.3")
            return env.lock_file(path)

    late: Any = Late()
    with pytest.raises(FileExistsError), claimed_folder(late, FOLDER, site="backup"):
        pass
    assert "CURRENT.1.3" in env.list_dir(FOLDER)
    # And its lock is free again.
    env.lock_file(f"{FOLDER}/LOCK").release()
