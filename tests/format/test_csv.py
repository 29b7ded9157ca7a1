"""The example of docs/format/csv.md imports to the pairs it shows and exports as it shows."""

import re

import pytest

import holdfast
from holdfast.cli import main


@pytest.fixture
def blocks(root):
    text = (root / "docs" / "format" / "csv.md").read_text()
    found = re.findall(r"^```(csv|pairs)\n(.*?)^```", text, re.M | re.S)
    assert ["csv", "pairs", "csv"] == [kind for kind, _ in found]
    return [content for _, content in found]


@pytest.fixture
def imported(blocks, tmp_path):
    (tmp_path / "rooms.csv").write_text(blocks[0])
    database = str(tmp_path / "db")
    assert 0 == main(["import", database, str(tmp_path / "rooms.csv"), "--key", "site,time"])
    return database


def test_the_example_imports_to_the_pairs_shown(blocks, imported, capfd):
    capfd.readouterr()
    assert 0 == main(["scan", imported, "--keyspace", "rooms"])
    assert blocks[1] == capfd.readouterr().out


def test_the_example_exports_to_the_text_shown(blocks, imported, capfd):
    capfd.readouterr()
    assert 0 == main(["export", imported])
    assert blocks[2] == capfd.readouterr().out


def test_every_damage_that_the_page_names_is_rejected(imported, capfd):
    columns = b'{"format":1,"columns":["time","site","value","note"],"key":["site","time"]}'
    damages = [
        (b"\x00csv", None),
        (b"\x00csv", b"["),
        (b"\x00csv", columns.replace(b'"format":1', b'"format":2')),
        (b"\x00csv", columns.replace(b'"key":["site","time"]', b'"key":["place"]')),
        (b"\x00csv", columns.replace(b'"key":["site","time"]', b'"key":[]')),
        (b"\x00csv", columns.replace(b'["time",', b'["site",')),
        (b"\x00csv", columns.replace(b'"columns":["time","site","value","note"],', b"")),
        (b"x", b""),
        (b"0north\x0002026-11-22 10:05\x00", b"021\x00"),
        (b"0north\x0002026-11-22 10:05\x00", b"\x50"),
        (b"0north\x0002026-11-22 10:05\x00", b"021\x00\x50"),
    ]
    for key, value in damages:
        with holdfast.open(imported) as database:
            rooms = database.keyspace("rooms")
            before = rooms.get(key)
            if value is None:
                rooms.delete(key)
            else:
                rooms[key] = value
        assert 1 == main(["export", imported, "--keyspace", "rooms"]), (key, value)
        assert "rooms" in capfd.readouterr().err
        with holdfast.open(imported) as database:
            rooms = database.keyspace("rooms")
            rooms.delete(key)
            if before is not None:
                rooms[key] = before
    assert 0 == main(["export", imported])
