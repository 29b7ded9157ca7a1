"""The log while keys change: nothing of it goes on under what the old key may open."""

import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import holdfast
from holdfast.crypto import PREAMBLE_BYTES, SEAL_MAGIC, FileKind, Preamble
from holdfast.engine import flush
from holdfast.engine.engine import Engine
from holdfast.env import FaultEnv, FaultRule, SimEnv
from tests.unit.engine.test_rekey import NEW, OLD, SMALL, opened_by, small


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


def sealed_epochs(path):
    """The epochs of the sealed files in a folder, as anybody can read them."""
    found = {}
    for file in Path(path).iterdir():
        data = file.read_bytes()
        at = len(data) - 64 if file.suffix == ".table" else 0
        if data[at:].startswith(SEAL_MAGIC):
            found[file.name] = Preamble.decode(
                data[at : at + PREAMBLE_BYTES], FileKind(data[at + 10]), file.name, at
            ).epoch
    return found


@pytest.mark.parametrize("rewrite", [False, True])
def test_what_is_committed_behind_a_change_is_under_the_new_data_key(path, rewrite):
    """Whoever had the old key and the old key file reads none of it, in this life already."""
    with holdfast.open(path, key=OLD, settings=SMALL) as db:
        db[b"before"] = b"1"
        old = set(sealed_epochs(path))
        db.rekey(NEW, rewrite=rewrite)
        db[b"after"] = b"2"
        new = {name: epoch for name, epoch in sealed_epochs(path).items() if name not in old}
        assert any(name.endswith(".wal") for name in new)
        assert set(new.values()) == {2}
        # A log segment of before is there as long as it is needed.
        assert rewrite != bool(old & set(sealed_epochs(path)))
        shutil.copytree(path, f"{path}-copy")
    with holdfast.open(f"{path}-copy", key=NEW) as db:
        assert dict(db.items()) == {b"before": b"1", b"after": b"2"}


def test_a_rewrite_waits_for_no_flush_to_remove_what_it_dropped(path, monkeypatch):
    """A flush is over for whoever waits for it when its edit is durable."""
    removes, is_over = Engine.unlink_segments, threading.Event()

    def remove(engine, numbers):
        if sys._getframe(1).f_code.co_filename == flush.__file__:
            assert is_over.wait(30)
        removes(engine, numbers)

    monkeypatch.setattr(Engine, "unlink_segments", remove)
    with holdfast.open(path, key=OLD, settings=SMALL) as db:
        db[b"before"] = b"1"
        try:
            db.rekey(NEW, rewrite=True)
            assert set(sealed_epochs(path).values()) == {2}
        finally:
            is_over.set()


def test_a_rewrite_drops_a_log_that_a_flush_left(path):
    """When all of it is in tables, no flush is needed, and none would drop it."""
    with holdfast.open(path, key=OLD, settings=SMALL) as db:
        db[b"k"] = b"v"
        db.flush()
        db.rekey(NEW, rewrite=True)
        assert set(sealed_epochs(path).values()) == {2}
        shutil.copytree(path, f"{path}-copy")
    with holdfast.open(f"{path}-copy", key=NEW) as db:
        assert db[b"k"] == b"v"


def test_a_log_that_fails_in_a_change_of_keys_poisons():
    env = SimEnv(7)
    fault = FaultEnv(env)
    db = small(fault)
    fault.add(FaultRule(site="wal.end.sync"))
    with pytest.raises(holdfast.DatabasePoisonedError):
        db.rekey(NEW)
    with pytest.raises(holdfast.DatabasePoisonedError):
        db[b"k"] = b"v"
    with suppress(holdfast.Error):
        db.close()
    found = opened_by(env, (OLD, NEW))
    assert [key for key, _ in found] == [NEW]
