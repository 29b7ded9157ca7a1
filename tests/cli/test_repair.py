"""`holdfast repair`: what it prints, and an exit status for each outcome."""

import json

import pytest

import holdfast as engine


@pytest.fixture
def damaged(database):
    """A database with two tables; the page of one is damaged."""
    with engine.open(str(database)) as db:
        db.put_many((b"key %03d" % number, b"value") for number in range(50))
        db.keyspace("other")[b"k"] = b"v"
    table = sorted(database.glob("*.table"))[0]
    data = table.read_bytes()
    table.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    return database


def lose_manifest(database):
    (manifest,) = database.glob("*.manifest")
    manifest.unlink()


def test_a_healthy_database_has_status_0_and_stays_as_it_is(holdfast, database):
    holdfast("put", database, "a", "1")
    done = holdfast("repair", database)
    assert (0, "") == (done.status, done.err)
    assert f"{database}: no damage found; nothing was changed\n" == done.out
    assert "1\n" == holdfast("get", database, "a").out


def test_a_loss_has_status_4_and_is_printed(holdfast, damaged):
    assert 1 == holdfast("verify", damaged).status
    done = holdfast("repair", damaged)
    assert 4 == done.status
    assert f"{damaged}: repaired with loss\n" in done.out
    assert "lost: entries (50) in keyspace 'default', from b'key 000' to " in done.out
    assert f"the originals of what is not used any more are in {damaged}/damaged-1\n" in done.out
    assert 0 == holdfast("verify", damaged).status
    assert "v\n" == holdfast("get", damaged, "k", "--keyspace", "other").out
    assert 0 == holdfast("repair", damaged).status


def test_without_loss_the_status_is_3(holdfast, database):
    with engine.open(str(database)) as db:
        db.put_many((b"key %03d" % number, b"value") for number in range(50))
    table = sorted(database.glob("*.table"))[0]
    data = table.read_bytes()
    table.write_bytes(data[:-60] + bytes([data[-60] ^ 1]) + data[-59:])
    done = holdfast("repair", database, "--json")
    assert 3 == done.status
    found = json.loads(done.out)
    assert "repaired without loss" == found["outcome"]
    assert [] == found["losses"]
    assert 1 == found["tables_rebuilt"]
    assert 50 == found["entries_rebuilt"]
    assert found["damage"][0]["file"].endswith(".table")


def test_a_new_folder_leaves_the_damaged_one_alone(holdfast, damaged, tmp_path):
    before = {p.name: p.read_bytes() for p in damaged.iterdir() if p.name != "LOCK"}
    done = holdfast("repair", damaged, tmp_path / "new", "--json")
    assert 4 == done.status
    found = json.loads(done.out)
    assert str(tmp_path / "new") == found["target"]
    assert None is found["set_aside"]
    assert ["entries"] == [loss["kind"] for loss in found["losses"]]
    assert b"key 000".hex() == found["losses"][0]["lower"]
    assert before == {p.name: p.read_bytes() for p in damaged.iterdir() if p.name != "LOCK"}
    assert 0 == holdfast("verify", tmp_path / "new").status


def test_a_lost_manifest_is_repaired(holdfast, database):
    holdfast("put", database, "a", "1")
    holdfast("put", database, "b", "2", "--keyspace", "named")
    lose_manifest(database)
    assert "repair" in holdfast("get", database, "a").err
    assert 4 == holdfast("repair", database, "--keep-behind").status
    assert "1\n" == holdfast("get", database, "a").out
    assert "2\n" == holdfast("get", database, "b", "--keyspace", "named").out


def test_what_cannot_be_repaired_has_status_1(holdfast, database, tmp_path):
    absent = holdfast("repair", tmp_path / "none")
    assert (1, f"holdfast: there is no database at {tmp_path}/none\n") == (
        absent.status,
        absent.err,
    )
    with engine.open(str(database)) as db:
        db[b"k"] = b"v"
        locked = holdfast("repair", database)
        assert 1 == locked.status
        assert "is locked by process" in locked.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    assert 1 == holdfast("repair", database, tmp_path / "full").status
    assert 2 == holdfast("repair").status


def test_an_encrypted_database_needs_its_key(holdfast, database, tmp_path):
    (tmp_path / "key").write_bytes(bytes(32))
    with engine.open(str(database), key=bytes(32)) as db:
        db[b"k"] = b"v"
    lose_manifest(database)
    refused = holdfast("repair", database)
    assert 1 == refused.status
    assert "encrypted" in refused.err
    assert 4 == holdfast("repair", database, "--key-file", tmp_path / "key").status
    assert "v\n" == holdfast("get", database, "k", "--key-file", tmp_path / "key").out
