"""Dump shows a file by itself, marks damaged places and goes on behind them."""

import json
import shutil

import pytest

import holdfast as engine


@pytest.fixture
def files(tmp_path):
    """One of each kind, away from their database: of a log in use, and of tables."""
    with engine.open(str(tmp_path / "db.hf")) as db:
        db.put_many((b"%04d" % key, b"%d" % (key * 7919) * 20) for key in range(2_000))
        db.delete(b"0003")
        db.delete_range(b"0100", b"0200")
        db.flush()
        db[b"one"] = b"1"
        db.put_many([(b"two", b"2"), (b"three", b"3")])
        db.delete_range(b"x", b"y")
        shutil.copytree(tmp_path / "db.hf", tmp_path / "copy.hf")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for suffix in ("wal", "table", "manifest"):
        # The first segment: a later one may be prepared and empty.
        path = sorted((tmp_path / "copy.hf").glob(f"*.{suffix}"))[0]
        shutil.copy(path, elsewhere / f"file.{suffix}")
    return elsewhere


def things(found, what):
    lines = [json.loads(line) for line in found.out.splitlines()]
    return [line for line in lines if line["what"] == what]


def damage(path, *places):
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0x5A
    path.write_bytes(data)


def test_a_segment_shows_its_records_and_operations(holdfast, files):
    found = holdfast("dump", files / "file.wal", "--json")
    assert 0 == found.status, found.out
    operations = [
        (line["key"], line["value"])
        for line in things(found, "put")
        if line["key"] in {"one", "two"}
    ]
    assert [("one", "1"), ("two", "2")] == operations
    assert ["0003"] == [line["key"] for line in things(found, "delete")]
    assert ["0100", "x"] == [line["start"] for line in things(found, "delete range")]
    records = things(found, "record")
    assert list(range(1, len(records) + 1)) == [record["lsn"] for record in records]
    assert 1 == len(things(found, "tail"))


def test_a_damaged_record_is_marked_and_the_later_ones_are_shown(holdfast, files):
    records = things(holdfast("dump", files / "file.wal", "--json"), "record")
    place = records[1]["offset"]
    damage(files / "file.wal", place + 81)
    found = holdfast("dump", files / "file.wal", "--json")
    assert 1 == found.status
    assert [place] == [line["offset"] for line in things(found, "damage")]
    assert [r for r in records if r["offset"] != place] == things(found, "record")
    damage(files / "file.wal", records[-1]["offset"] + 10)
    found = holdfast("dump", files / "file.wal", "--json")
    assert len(records) - 2 == len(things(found, "record"))
    assert "torn by a crash, or damaged" in things(found, "tail")[0]["reason"]


@pytest.mark.parametrize("place", [3, 30, 45])
def test_a_damaged_segment_header_does_not_hide_the_records(holdfast, files, place):
    whole = holdfast("dump", files / "file.wal", "--json")
    damage(files / "file.wal", place)
    found = holdfast("dump", files / "file.wal", "--json")
    assert 1 == found.status
    assert things(found, "damage")
    if place != 30:
        assert things(whole, "record") == things(found, "record")


def test_a_table_shows_its_pages_and_entries(holdfast, files):
    found = holdfast("dump", files / "file.table", "--json")
    assert 0 == found.status
    kinds = {line["type"] for line in things(found, "page")}
    assert {"DATA", "INDEX", "INDEX_ROOT", "FILTER", "PROPERTIES"} <= kinds
    keys = [line["key"] for line in things(found, "put")]
    assert sorted(keys) == keys
    assert "1999" == keys[-1]
    properties = {line["name"]: line["value"] for line in things(found, "property")}
    assert len(keys) + len(things(found, "delete")) == properties["entry_count"]


def test_damaged_pages_are_marked_and_the_others_shown(holdfast, files):
    pages = things(holdfast("dump", files / "file.table", "--json"), "page")
    data = [page for page in pages if page["type"] == "DATA"]
    assert len(data) > 2
    whole = holdfast("dump", files / "file.table", "--json")
    damage(files / "file.table", data[1]["offset"] + 5)
    found = holdfast("dump", files / "file.table", "--json")
    assert 1 == found.status
    assert [data[1]["offset"]] == [line["offset"] for line in things(found, "damage")]
    assert (
        0 < len(things(whole, "put")) - len(things(found, "put")) < len(things(whole, "put")) // 2
    )
    assert "1999" == things(found, "put")[-1]["key"]


@pytest.mark.parametrize("behind", [1, 127, 60, 40])
def test_a_damaged_footer_is_read_as_it_stands(holdfast, files, behind):
    path = files / "file.table"
    damage(path, path.stat().st_size - behind)
    found = holdfast("dump", path, "--json")
    assert 1 == found.status
    assert things(found, "damage")
    if behind in {1, 127}:
        assert "1999" == things(found, "put")[-1]["key"]


def test_a_manifest_shows_its_edits(holdfast, files):
    found = holdfast("dump", files / "file.manifest", "--json")
    assert 0 == found.status
    edits = things(found, "edit")
    assert len(edits) >= 2
    assert ["default"] == [line["name"] for line in things(found, "new keyspace")]
    assert things(found, "add table")


def test_a_damaged_edit_is_marked_and_the_later_ones_are_shown(holdfast, files):
    edits = things(holdfast("dump", files / "file.manifest", "--json"), "edit")
    for place, shown in ((edits[0]["offset"] + 45, edits[1:]), (edits[0]["offset"] + 5, edits[1:])):
        damage(files / "file.manifest", place)
        found = holdfast("dump", files / "file.manifest", "--json")
        assert 1 == found.status
        assert [edits[0]["offset"]] == [line["offset"] for line in things(found, "damage")]
        assert shown == things(found, "edit")
    damage(files / "file.manifest", 3, 30)
    found = holdfast("dump", files / "file.manifest", "--json")
    assert 1 == found.status


def test_people_see_short_values_and_as_many_as_they_want(holdfast, files):
    found = holdfast("dump", files / "file.table", "--limit", "3")
    assert 3 == found.out.count("\n  put") + found.out.count("\n  delete")
    assert "... (" in found.out
    assert "more" == found.out.splitlines()[-1].split()[0]
    assert "value=" not in holdfast("dump", files / "file.wal", "--keys-only").out
    assert "key=6f6e65" in holdfast("dump", files / "file.wal", "--hex").out


@pytest.mark.parametrize("size", [0, 7, 100, 130, 5_000])
@pytest.mark.parametrize("suffix", ["wal", "table", "manifest"])
def test_a_cut_file_is_damage_and_no_fault(holdfast, files, suffix, size):
    path = files / f"file.{suffix}"
    path.write_bytes(path.read_bytes()[:size])
    found = holdfast("dump", path)
    assert found.status in {0, 1} if suffix == "manifest" else found.status == 1
    assert "a fault in Holdfast" not in found.err


def test_any_flipped_byte_is_survived(holdfast, files, rng):
    for suffix in ("wal", "table", "manifest"):
        path = files / f"file.{suffix}"
        whole = path.read_bytes()
        places = [rng.randrange(min(len(whole), 200_000)) for _ in range(25)]
        for place in [*places, 8, len(whole) - 120]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            found = holdfast("dump", path, "--limit", "0")
            assert "a fault in Holdfast" not in found.err, (suffix, place)


def test_another_file_is_refused(holdfast, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"jpeg" * 100)
    found = holdfast("dump", tmp_path / "photo.jpg")
    assert 1 == found.status
    assert "is no log segment, table or manifest" in found.err


def test_a_file_of_another_kind_with_our_suffix_is_damage(holdfast, tmp_path):
    (tmp_path / "file.table").write_bytes(b"jpeg" * 100)
    found = holdfast("dump", tmp_path / "file.table")
    assert 1 == found.status
    assert "damage" in found.out
