"""Every verb, on small databases: what it prints, and its exit status."""

import json

import pytest

import holdfast as engine


@pytest.fixture
def rows(database):
    with engine.open(str(database)) as db:
        db.put_many([(b"a", b"1"), (b"b\n", b"\xff"), (b"c", b"-3"), (b"d", b"")])
        db.keyspace("other")[b"k"] = b"v"
    return database


def test_a_value_goes_in_and_comes_out(holdfast, database):
    assert 0 == holdfast("put", database, "key", "value").status
    assert "value\n" == holdfast("get", database, "key").out
    assert 0 == holdfast("delete", database, "key").status
    gone = holdfast("get", database, "key")
    assert (1, "", "holdfast: there is no key key\n") == (gone.status, gone.out, gone.err)
    assert 0 == holdfast("delete", database, "key").status


@pytest.mark.parametrize("durability", ["commit", "interval", "none"])
def test_every_durability_is_there_after_the_command(holdfast, database, durability):
    assert 0 == holdfast("put", database, "key", "value", "--durability", durability).status
    assert "value\n" == holdfast("get", database, "key").out


def test_put_makes_a_keyspace_and_reading_does_not(holdfast, rows):
    assert 0 == holdfast("put", rows, "k", "w", "--keyspace", "new").status
    assert "w\n" == holdfast("get", rows, "k", "--keyspace", "new").out
    for verb in (["get", rows, "k"], ["scan", rows], ["delete", rows, "k"], ["compact", rows]):
        absent = holdfast(*verb, "--keyspace", "none")
        assert 1 == absent.status
        assert "no keyspace 'none'; it has 'default', 'new', 'other'" in absent.err


def test_values_come_from_files_and_from_standard_input(holdfast, database, tmp_path, monkeypatch):
    (tmp_path / "value").write_bytes(b"any\x00thing\n")
    assert 0 == holdfast("put", database, "file", f"@{tmp_path}/value").status
    assert r"any\x00thing\n" + "\n" == holdfast("get", database, "file").out
    with open(tmp_path / "value") as given:
        monkeypatch.setattr("sys.stdin", given)
        assert 0 == holdfast("put", database, "input", "-").status
    assert "any\0thing\n" == holdfast("get", database, "input", "--raw").out
    assert 0 == holdfast("put", database, "dash", r"\-").status
    assert "-" == holdfast("get", database, "dash", "--raw").out
    assert 0 == holdfast("put", database, "at", "@no such file", "--raw").status
    assert r"\@no such file" + "\n" == holdfast("get", database, "at").out


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], ["a\t1", r"b\n" + "\t" + r"\xff", "c\t" + r"\-3", "d\t"]),
        (["--reverse", "--limit", "2"], ["d\t", "c\t" + r"\-3"]),
        (["--start", r"b\n", "--stop", "d", "--keys"], [r"b\n", "c"]),
        (["--prefix", "b", "--keys"], [r"b\n"]),
        (["--hex", "--limit", "2"], ["61\t31", "620a\tff"]),
        (["--hex", "--start", "63", "--keys"], ["63", "64"]),
        (["--raw", "--prefix", "c"], ["c\t-3"]),
        (["--limit", "0"], []),
        (["--keyspace", "other"], ["k\tv"]),
        (["--json", "--prefix", "b"], [r'{"key": "b\\n", "value": "\\xff"}']),
        (["--json", "--keys", "--limit", "1"], ['{"key": "a"}']),
    ],
)
def test_scan_prints_what_is_asked_for(holdfast, rows, arguments, lines):
    found = holdfast("scan", rows, *arguments)
    assert 0 == found.status
    assert lines == found.out.splitlines()


def test_a_keyspace_whose_name_is_no_text_is_wrong_usage(holdfast, rows):
    for arguments in (["put", rows, "k", "v"], ["get", rows, "k"], ["scan", rows]):
        found = holdfast(*arguments, "--keyspace", "\udcff")
        assert 2 == found.status
        assert "the name of a keyspace is UTF-8" in found.err


def test_raw_bytes_are_printed_as_they_are(holdfast, rows):
    assert "a\t1\nb\n\t\udcff\nc\t-3\nd\t\n" == holdfast("scan", rows, "--raw").out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["put"],
        ["get", "db"],
        ["get", "db", r"\q"],
        ["get", "db", "abc", "--hex"],
        ["put", "db", "k", "v", "--durability", "never"],
        ["scan", "db", "--json", "--raw"],
        ["scan", "db", "--limit", "-1"],
        ["scan", "db", "--limit", "many"],
        ["get", "db", "k", "--hex", "--raw"],
        ["import", "db", "f.csv"],
        ["import", "db", "f.csv", "--key", "a", "--batch", "0"],
        ["import", "db", "f.csv", "g/f.csv", "--key", "a"],
        ["import", "db", "f.csv", "g.csv", "--key", "a", "--keyspace", "k"],
        ["import", "db", "-", "--key", "a"],
        ["dump", "f.wal", "--limit", "-1"],
        ["changes", "db", "--follow", "--interval", "nan"],
        ["changes", "db", "--follow", "--interval", "inf"],
        ["changes", "db", "--follow", "--interval", "0"],
        ["stats", "db", "--watch", "--interval", "nan"],
        ["stats", "db", "--watch", "--interval", "-1"],
        ["stats", "db", "--watch", "--count", "0"],
        ["torture", "d", "--minutes", "nan"],
        ["torture", "d", "--minutes", "inf"],
        ["torture", "d", "--minutes", "-1"],
        ["torture", "d", "--first-flip", "-1"],
        ["torture", "d", "--first-workload", "-1"],
        ["bench", "put", "--rounds", "0", "--folder", "d"],
        ["backup", "db", "db"],
        ["backup", "db", "db/copy"],
        ["repair", "db", "db/copy"],
        ["import", "db", "\udcff.csv", "--key", "a"],
        ["import", "db", "f.csv", "--key", "a", "--keyspace", "\udcff"],
    ],
)
def test_wrong_usage_is_status_2_and_touches_nothing(holdfast, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    found = holdfast(*arguments)
    assert 2 == found.status
    assert found.err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "db", "k"],
        ["delete", "db", "k"],
        ["scan", "db"],
        ["stats", "db"],
        ["verify", "db"],
        ["compact", "db"],
        ["export", "db"],
        ["dump", "db"],
        ["import", "db", "f.csv", "--key", "a"],
        ["put", "db", "k", "@f"],
    ],
)
def test_what_is_not_there_is_one_line_and_made_by_nobody(
    holdfast, tmp_path, monkeypatch, arguments
):
    monkeypatch.chdir(tmp_path)
    found = holdfast(*arguments)
    assert 1 == found.status
    assert found.err.startswith("holdfast: ")
    assert 1 == found.err.count("\n")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["photo.jpg", "notes.wal"])
def test_a_folder_that_is_no_database_stays_as_it_is(holdfast, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    key = tmp_path.with_name("key")
    key.write_bytes(bytes(32))
    for verb in ("get", "put", "delete", "scan", "stats", "verify", "compact", "repair", "changes"):
        arguments = {"get": ["k"], "delete": ["k"], "put": ["k", "v"]}.get(verb, [])
        for sealed in ([], ["--key-file", key]):
            assert 1 == holdfast(verb, tmp_path, *arguments, *sealed).status
            assert [name] == [path.name for path in tmp_path.iterdir()], verb


def test_help_names_every_verb_and_is_no_failure(holdfast):
    found = holdfast("--help")
    assert 0 == found.status
    for verb in (
        "put",
        "get",
        "delete",
        "scan",
        "import",
        "export",
        "stats",
        "verify",
        "compact",
        "dump",
    ):
        assert f"\n  {verb} " in found.out
        assert 0 == holdfast(verb, "--help").status
    assert holdfast("--version").out.startswith("holdfast 0.")


def test_stats_say_what_lies_where(holdfast, rows):
    text = holdfast("stats", rows).out
    assert text.splitlines()[0].split() == [
        "keyspace",
        "level",
        "tables",
        "bytes",
        "entries",
        "deletes",
    ]
    assert "space amplification" in text
    plain = json.loads(holdfast("stats", rows, "--json").out)
    assert ["default", "other"] == [keyspace["name"] for keyspace in plain["keyspaces"]]
    assert plain["table_bytes"] == sum(keyspace["table_bytes"] for keyspace in plain["keyspaces"])
    assert 1 == plain["read_amplification"]


def test_stats_of_a_killed_database_count_its_log(holdfast, database, tmp_path):
    import shutil

    with engine.open(str(database)) as db:
        db[b"key"] = b"x" * 5_000
        shutil.copytree(database, tmp_path / "killed.hf")
    assert "log" in holdfast("stats", tmp_path / "killed.hf").out.splitlines()[1].split()


def test_compact_brings_space_back(holdfast, database):
    with engine.open(str(database)) as db:
        for turn in range(3):
            db.put_many((b"%05d" % key, b"%d" % turn * 50) for key in range(2_000))
            db.flush()
        db.keyspace("other")[b"key"] = b"value"
        db.delete_range(b"00000", b"01900")
    found = holdfast("compact", database)
    assert 0 == found.status
    before, after = (int(word.replace(",", "")) for word in found.out.split() if word[0].isdigit())
    assert after < before / 10
    assert 100 == len(holdfast("scan", database, "--keys").out.splitlines())
    assert 0 == holdfast("compact", database, "--start", "0", "--stop", "1").status
    assert 0 == holdfast("compact", database, "--keyspace", "other").status


@pytest.mark.parametrize(
    ("words", "compacted"),
    [
        ([], {"default", "other"}),
        (["--keyspace", "default"], {"default"}),
        (["--keyspace", "other"], {"other"}),
        (["--start", "0"], {"default"}),
    ],
)
def test_compact_takes_the_keyspaces_that_are_meant(holdfast, database, words, compacted):
    with engine.open(str(database)) as db:
        for space in (db, db.keyspace("other")):
            for value in (b"old", b"new"):
                space[b"1"] = value
                db.flush()
    assert 0 == holdfast("compact", database, *words).status
    with engine.open(str(database)) as db:
        entries = {
            each.name: sum(level.entries for level in each.levels) for each in db.stats().keyspaces
        }
    assert {name: 1 if name in compacted else 2 for name in ("default", "other")} == entries


def test_compact_and_backup_tell_programs_what_they_did(holdfast, rows, tmp_path):
    before = json.loads(holdfast("stats", rows, "--json").out)["table_bytes"]
    done = json.loads(holdfast("compact", rows, "--json").out)
    after = json.loads(holdfast("stats", rows, "--json").out)["table_bytes"]
    assert done == {"table_bytes_before": before, "table_bytes_after": after}
    copy = tmp_path / "copy"
    done = json.loads(holdfast("backup", rows, copy, "--json").out)
    assert done["folder"] == str(copy)
    assert done["bytes"] > after


def test_compact_shows_how_far_it_is(holdfast, rows, monkeypatch):
    lines = []

    def add(progress, count, rows=0):
        lines.append((count, progress.total))

    monkeypatch.setattr("holdfast.cli.progress.Progress.add", add)
    assert holdfast("compact", rows).status == 0
    assert sum(count for count, _ in lines) == lines[0][1] > 0


def test_verify_lists_every_damaged_place_of_a_database_that_opens(holdfast, database):
    with engine.open(str(database)) as db:
        db.put_many((b"%05d" % key, b"%05d" % (key * 7919 % 10007) * 9) for key in range(5_000))
    (table,) = database.glob("*.table")
    data = bytearray(table.read_bytes())
    for place in (100, len(data) // 2):
        data[place] ^= 1
    table.write_bytes(data)
    found = holdfast("verify", database)
    assert 1 == found.status
    assert 2 == found.out.count(f"{table}: damaged at byte ")
    assert "2 damaged places" in found.out.splitlines()[-1]
    plain = json.loads(holdfast("verify", database, "--json").out)
    assert not plain["ok"]
    assert [str(table)] * 2 == [error["file"] for error in plain["errors"]]
    assert 0 == plain["errors"][0]["offset"]
    assert all(error["reason"] for error in plain["errors"])


@pytest.mark.parametrize("suffix", ["manifest", "table", "wal", "CURRENT"])
def test_verify_reports_a_database_that_does_not_open(holdfast, rows, suffix):
    if suffix == "CURRENT":
        for path in rows.glob("CURRENT.*"):
            path.unlink()
    elif suffix == "table":
        for path in rows.glob("*.table"):
            path.write_bytes(path.read_bytes()[:-1])
    else:
        (path,) = rows.glob(f"*.{suffix}")
        data = bytearray(path.read_bytes())
        data[20] ^= 0xFF
        path.write_bytes(data)
    found = holdfast("verify", rows)
    assert 1 == found.status
    assert "damaged" in found.out
    assert 1 == holdfast("scan", rows).status


def test_verify_is_not_stopped_by_a_missing_table(holdfast, rows):
    first, *others = sorted(rows.glob("*.table"))
    assert others
    first.unlink()
    found = holdfast("verify", rows)
    assert 1 == found.status
    assert f"{first}: damaged at byte 0: the table is missing" in found.out
    assert "1 damaged places" in found.out


def test_a_backup_is_a_database_with_the_same_content(holdfast, rows, tmp_path):
    copy = tmp_path / "copy"
    done = holdfast("backup", rows, copy)
    assert (0, "") == (done.status, done.err)
    assert f" bytes were copied to {copy}\n" in done.out
    assert holdfast("scan", rows).out == holdfast("scan", copy).out != ""
    assert "v\n" == holdfast("get", copy, "k", "--keyspace", "other").out
    assert 0 == holdfast("verify", copy).status
    again = holdfast("backup", rows, copy)
    assert (1, "") == (again.status, again.out)
    assert "is not empty" in again.err
    assert 1 == holdfast("backup", tmp_path / "absent", tmp_path / "other").status
    assert not (tmp_path / "other").exists()
    assert 2 == holdfast("backup", rows).status
