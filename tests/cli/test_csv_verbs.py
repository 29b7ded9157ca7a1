"""Import and export: real series round-trip, and what is wrong is said."""

import csv
import json
import os

import pytest

import holdfast as engine


def in_key_order(path):
    """The file with its rows in key order, of rows with equal keys the last."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    last = {row[0].encode(): row for row in rows}
    return "".join(",".join(row) + "\n" for row in [header, *(last[key] for key in sorted(last))])


def write(path, text):
    path.write_text(text)
    return path


def test_the_ten_series_come_out_as_they_went_in(holdfast, database, data_folder, tmp_path):
    files = sorted(data_folder.glob("*.csv"))
    assert 10 == len(files)
    found = holdfast("import", database, *files, "--key", "timestamp")
    assert 0 == found.status, found.err
    assert [path.stem for path in files] == [line.split(":")[0] for line in found.out.splitlines()]
    for path in files:
        expected = in_key_order(path)
        assert expected == holdfast("export", database, "--keyspace", path.stem).out
        output = tmp_path / "out.csv"
        assert 0 == holdfast("export", database, "--keyspace", path.stem, "--output", output).status
        assert expected == output.read_text()
        line = next(line for line in found.out.splitlines() if line.startswith(f"{path.stem}:"))
        assert f" {expected.count(chr(10)) - 1:,} distinct keys" in line
    assert 0 == holdfast("verify", database).status
    assert not list(tmp_path.glob("*.partial"))


def test_a_second_import_changes_nothing_and_others_add(holdfast, database, tmp_path):
    first = write(tmp_path / "t.csv", "k,v\n2,b\n1,a\n")
    for _ in range(2):
        assert 0 == holdfast("import", database, first, "--key", "k").status
        assert "k,v\n1,a\n2,b\n" == holdfast("export", database).out
    more = write(tmp_path / "more.csv", "k,v\n3,c\n2,B\n")
    assert 0 == holdfast("import", database, more, "--key", "k", "--keyspace", "t").status
    assert "k,v\n1,a\n2,B\n3,c\n" == holdfast("export", database).out


def test_a_key_of_several_columns_orders_the_rows(holdfast, database, tmp_path):
    text = 'time,"the ""site""",v\n2,a,x\n1,b,y\n1,a,z\n'
    source = write(tmp_path / "t.csv", text)
    assert 0 == holdfast("import", database, source, "--key", '"the ""site""",time').status
    assert [text.splitlines()[at] for at in (0, 3, 1, 2)] == holdfast(
        "export", database
    ).out.splitlines()


def test_a_file_without_rows_is_a_table_without_rows(holdfast, database, tmp_path):
    assert 0 == holdfast("import", database, write(tmp_path / "t.csv", "k\n"), "--key", "k").status
    assert "k\n" == holdfast("export", database).out


def test_standard_input_is_imported(holdfast, start, database):
    import subprocess

    child = start("import", database, "-", "--key", "k", "--keyspace", "t", stdin=subprocess.PIPE)
    child.communicate(b"k,v\n1,a\n")
    assert 0 == child.returncode
    assert "k,v\n1,a\n" == holdfast("export", database).out


def test_programs_hear_of_every_commit(holdfast, database, tmp_path):
    source = write(tmp_path / "t.csv", "k\n" + "".join(f"{row}\n" for row in range(25)))
    found = holdfast("import", database, source, "--key", "k", "--batch", "10", "--json")
    events = [json.loads(line) for line in found.out.splitlines()]
    assert ["opening", "committed", "committed", "committed", "imported"] == [
        event["event"] for event in events
    ]
    assert [10, 20, 25, 25] == [event["rows"] for event in events[1:]]
    assert (25, "commit") == (events[-1]["keys"], events[-1]["durability"])


@pytest.mark.parametrize(
    ("text", "key", "status", "reason"),
    [
        ("", "k", 1, "is empty"),
        ("k,v\n1,2\n", "w", 2, "no column 'w' among k,v"),
        ("k,k\n1,2\n", "k", 2, "several columns 'k'"),
        ("k,v\n1,2\n", "k,k", 2, "once"),
        ("k,v\n1,2\n", "", 2, "--key"),
    ],
)
def test_a_file_that_cannot_be_imported_makes_no_database(
    holdfast, database, tmp_path, text, key, status, reason
):
    found = holdfast("import", database, write(tmp_path / "t.csv", text), "--key", key)
    assert status == found.status
    assert reason in found.err
    assert not database.exists()


def test_what_was_committed_before_a_fault_stays_and_is_said(holdfast, database, tmp_path):
    source = write(tmp_path / "t.csv", "k,v\n1,a\n2,b\n3,c\n4\n5,e\n")
    found = holdfast("import", database, source, "--key", "k", "--batch", "2")
    assert 1 == found.status
    assert "line 5: the row has 1 cells" in found.err
    assert "2 rows were committed to 't' and stay" in found.err
    assert "k,v\n1,a\n2,b\n" == holdfast("export", database).out


def test_a_key_that_is_too_long_names_its_line(holdfast, database, tmp_path):
    source = write(tmp_path / "t.csv", "k\n1\n" + "x" * 70_000 + "\n")
    found = holdfast("import", database, source, "--key", "k")
    assert 1 == found.status
    assert "line 3: the key has" in found.err


def test_other_columns_and_other_keys_are_refused(holdfast, database, tmp_path):
    holdfast("import", database, write(tmp_path / "t.csv", "k,v\n1,2\n"), "--key", "k")
    for text, key in (("k,w\n1,2\n", "k"), ("v,k\n1,2\n", "k"), ("k,v\n1,2\n", "v")):
        found = holdfast("import", database, write(tmp_path / "t.csv", text), "--key", key)
        assert 1 == found.status
        assert "keyspace 't' has the columns k,v and the key k" in found.err
    holdfast("put", database, "k", "v", "--keyspace", "mine")
    source = write(tmp_path / "mine.csv", "k,v\n1,2\n")
    assert "no import wrote" in holdfast("import", database, source, "--key", "k").err


def test_export_wants_to_know_which_of_several(holdfast, database, tmp_path):
    holdfast("put", database, "k", "v")
    assert "none was" in holdfast("export", database).err
    files = [write(tmp_path / name, "k\n1\n") for name in ("a.csv", "b.csv")]
    holdfast("import", database, *files, "--key", "k")
    assert "these are: a, b" in holdfast("export", database).err
    assert "not imported" in holdfast("export", database, "--keyspace", "default").err
    assert "no keyspace 'c'" in holdfast("export", database, "--keyspace", "c").err
    assert "k\n1\n" == holdfast("export", database, "--keyspace", "b").out


def test_an_export_that_fails_leaves_the_file_that_was_there(holdfast, database, tmp_path):
    holdfast("import", database, write(tmp_path / "t.csv", "k,v\n1,2\n"), "--key", "k")
    with engine.open(str(database)) as db:
        db.keyspace("t")[b"zzz"] = b"no tuple"
    output = write(tmp_path / "out.csv", "precious\n")
    found = holdfast("export", database, "--output", output)
    assert 1 == found.status
    assert "has the key zzz, which no import wrote" in found.err
    assert "precious\n" == output.read_text()
    assert not list(tmp_path.glob("*.partial"))


def test_distinct_keys_are_not_counted_beyond_a_limit(holdfast, database, tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.cli.csv_import.KEYS_COUNTED_MAX", 2)
    found = holdfast("import", database, write(tmp_path / "t.csv", "k\n1\n2\n3\n"), "--key", "k")
    assert "t: imported 3 rows, 18" not in found.out
    assert "distinct" not in found.out


def test_large_rows_are_committed_before_the_batch_is_full(
    holdfast, database, tmp_path, monkeypatch
):
    monkeypatch.setattr("holdfast.cli.csv_import.BATCH_BYTES_MAX", 100)
    source = write(tmp_path / "t.csv", "k,v\n" + "".join(f"{k},{'x' * 60}\n" for k in range(4)))
    found = holdfast("import", database, source, "--key", "k", "--json")
    events = [json.loads(line) for line in found.out.splitlines()]
    assert [2, 4] == [event["rows"] for event in events if event["event"] == "committed"]


def test_export_replaces_no_device_and_follows_a_symbolic_link(holdfast, database, tmp_path):
    source = write(tmp_path / "t.csv", "a,b\n1,2\n")
    assert 0 == holdfast("import", database, source, "--key", "a").status
    os.mkfifo(tmp_path / "pipe")
    found = holdfast("export", database, "--output", tmp_path / "pipe")
    assert 1 == found.status
    assert "must be a regular file" in found.err
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("target")
    assert 0 == holdfast("export", database, "--output", tmp_path / "link").status
    assert (tmp_path / "link").is_symlink()
    assert "a,b\n1,2\n" == (tmp_path / "target").read_text()
    assert not list(tmp_path.glob("*.partial"))
