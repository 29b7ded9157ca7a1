"""Keys on the command line, and the verbs on encrypted databases."""

import argparse
import io
import json
import os
import sys

import pytest

import holdfast as engine
from holdfast.cli import keys
from holdfast.codec import checksum
from holdfast.crypto import SourceKind
from tests.unit.crypto.test_refused_keys import shown as traceback_of

KEY = bytes(range(32))
NEW = bytes(range(32, 64))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "raw").write_bytes(KEY)
    (tmp_path / "hex").write_text(KEY.hex() + "\n")
    (tmp_path / "new").write_bytes(NEW)
    return tmp_path


@pytest.fixture
def database(files):
    path = files / "db"
    with engine.open(str(path), key=KEY) as db:
        db[b"k"] = b"v"
    return path


class Typed:
    """Standard input that is no terminal."""

    def __init__(self, text):
        self.buffer = io.BytesIO(text)

    def isatty(self):
        return False


def test_a_key_is_read_from_a_file_or_from_the_environment(holdfast, files, database, monkeypatch):
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY.hex())
    for given in (
        ("--key-file", files / "raw"),
        ("--key-file", files / "hex"),
        ("--key-env", "KEY_OF_THE_TEST"),
    ):
        assert holdfast("get", database, "k", *given).out == "v\n"


def test_a_passphrase_is_a_line_of_standard_input(holdfast, files, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed(b"some words\nthe value"))
    assert holdfast("put", files / "p", "k", "-", "--passphrase").status == 0
    monkeypatch.setattr(sys, "stdin", Typed(b"some words\r\n"))
    assert holdfast("get", files / "p", "k", "--passphrase").out == "the value\n"
    monkeypatch.setattr(sys, "stdin", Typed(b"other words\n"))
    shown = holdfast("get", files / "p", "k", "--passphrase")
    assert (shown.status, shown.out) == (1, "")
    assert "the key is not that of this database" in shown.err


def test_a_passphrase_stands_before_the_rows_of_standard_input(holdfast, files, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed(b"some words\na,b\n1,2\n"))
    shown = holdfast("import", files / "p", "-", "--key", "a", "--keyspace", "t", "--passphrase")
    assert shown.status == 0, shown.err
    monkeypatch.setattr(sys, "stdin", Typed(b"some words\n"))
    assert holdfast("export", files / "p", "--passphrase").out == "a,b\n1,2\n"


def on_a_terminal(monkeypatch, *words):
    """Let these be typed, one after the other; an exception among them is raised."""
    asked = iter(words)

    def typed(prompt):
        word = next(asked)
        if isinstance(word, BaseException):
            raise word
        return word

    monkeypatch.setattr(sys, "stdin", Typed(b""))
    monkeypatch.setattr(Typed, "isatty", lambda stdin: True)
    monkeypatch.setattr(keys.getpass, "getpass", typed)


def given(*words, prefix="", creates=False):
    """Return what `keys.key_of` makes of arguments of a verb."""
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    keys.add_key(parser, prefix=prefix)
    arguments = parser.parse_args(["absent", *map(str, words)])
    return keys.key_of(arguments, prefix=prefix, creates=creates)


def test_on_a_terminal_a_new_passphrase_is_asked_for_twice(monkeypatch):
    on_a_terminal(monkeypatch, "a", "a", "a", "b", "")
    assert given("--new-passphrase", prefix="new-").kind is SourceKind.PASSPHRASE
    with pytest.raises(keys.CommandError, match="differ"):
        given("--new-passphrase", prefix="new-")
    with pytest.raises(keys.CommandError, match="empty"):
        given("--passphrase")


HIDDEN = "#" * 30


@pytest.mark.parametrize("text", [HIDDEN, HIDDEN * 3, HIDDEN + "\xff", "0" * 62 + HIDDEN[:2]])
def test_no_traceback_shows_what_was_taken_for_a_key(tmp_path, monkeypatch, text):
    """A tool that prints the variables of all frames would tell a key that was mistyped."""
    path = tmp_path / "key"
    path.write_text(text, encoding="latin-1")
    monkeypatch.setenv("KEY_OF_THE_TEST", text)
    for words in (["--key-file", path], ["--key-env", "KEY_OF_THE_TEST"]):
        with pytest.raises(keys.CommandError, match="holds no key") as caught:
            given(*words)
        assert "##" not in traceback_of(caught.value, __file__)


def test_no_traceback_shows_a_passphrase(monkeypatch):
    on_a_terminal(
        monkeypatch, HIDDEN, "other words", HIDDEN + "\udcff", HIDDEN * 200, HIDDEN,
        KeyboardInterrupt(),
    )  # fmt: skip
    errors = []
    for prefix in ("new-", "", "", "new-"):
        with pytest.raises((keys.CommandError, KeyboardInterrupt)) as caught:
            given(f"--{prefix}passphrase", prefix=prefix)
        assert "##" not in traceback_of(caught.value, __file__)
        errors.append(caught.value)
    for error, said in zip(errors, ("differ", "surrogates", "4096 bytes", ""), strict=True):
        assert said in str(error)
    assert isinstance(errors[3], KeyboardInterrupt)
    monkeypatch.setattr(sys, "stdin", Typed(HIDDEN.encode() + b"\xff\n"))
    monkeypatch.setattr(Typed, "isatty", lambda stdin: False)
    with pytest.raises(keys.CommandError, match="not UTF-8") as caught:
        given("--passphrase")
    assert "##" not in traceback_of(caught.value, __file__)


def test_on_a_terminal_a_database_is_not_made_with_a_mistyped_passphrase(
    holdfast, files, monkeypatch
):
    class Terminal:
        def isatty(self):
            return True

    asked = iter(["words", "wrods", "words", "words", "words", "words"])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(keys.getpass, "getpass", lambda prompt: next(asked))
    put = ("put", files / "p", "k", "v", "--passphrase")
    shown = holdfast(*put)
    assert (shown.status, shown.err) == (2, "holdfast: the two passphrases differ\n")
    assert not (files / "p").exists()
    assert holdfast(*put).status == 0
    # Of one that is there it is asked for once.
    assert holdfast(*put).status == 0
    assert holdfast("get", files / "p", "k", "--passphrase").out == "v\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--key-file", "short"], "neither 32 bytes nor 64"),
        (["--key-file", "binary"], "neither 32 bytes nor 64"),
        (["--key-file", "long"], "neither 32 bytes nor 64"),
        (["--key-file", "/dev/zero"], "neither 32 bytes nor 64"),
        (["--key-file", "."], "Is a directory"),
        (["--key-file", "absent"], "No such file"),
        (["--key-env", "NOT_THERE_AT_ALL"], "no environment variable"),
        (["--key-env", "WORDS_OF_THE_TEST"], "neither 32 bytes nor 64"),
        (["--key-env", "X", "--passphrase"], "not allowed with"),
        (["--passphrase"], "is empty"),
    ],
)
def test_what_holds_no_key_is_said(holdfast, files, database, monkeypatch, given, said):
    (files / "short").write_bytes(b"short")
    (files / "binary").write_bytes(bytes(range(200, 240)))
    # All that a look at the first 256 bytes would show is a key.
    (files / "long").write_text(KEY.hex() + " " * 192 + "junk")
    monkeypatch.setenv("WORDS_OF_THE_TEST", "words")
    monkeypatch.setattr(sys, "stdin", Typed(b""))
    monkeypatch.chdir(files)
    shown = holdfast("get", database, "k", *given)
    assert shown.status in (1, 2)
    assert said in shown.err
    assert "words" not in shown.err


def test_a_passphrase_that_is_no_text_is_refused(holdfast, database, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed(b"\xff\xff\n"))
    assert "not UTF-8" in holdfast("get", database, "k", "--passphrase").err


def test_words_that_are_too_many_are_wrong_usage(holdfast, database, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed(b"w" * 4097 + b"\n"))
    shown = holdfast("get", database, "k", "--passphrase")
    assert shown.status == 2
    assert shown.err.startswith("holdfast: ")
    assert "a passphrase has 1 to 4096 bytes" in shown.err


def test_words_of_a_terminal_that_are_no_text_are_wrong_usage(holdfast, database, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed(b""))
    monkeypatch.setattr(Typed, "isatty", lambda stdin: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "four \udcff words")
    shown = holdfast("get", database, "k", "--passphrase")
    assert shown.status == 2
    assert "lone surrogates" in shown.err


def test_without_the_package_of_the_ciphers_a_key_says_what_to_install(
    holdfast, files, database, monkeypatch
):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    for verb in (
        ("put", files / "new.hf", "a", "b"),
        ("get", database, "k"),
        ("verify", database),
        ("repair", database),
        ("stats", database, "--watch", "--count", "1"),
        ("dump", next(database.glob("*.manifest"))),
    ):
        shown = holdfast(*verb, "--key-file", files / "raw")
        assert shown.status == 1, verb
        assert shown.err == (
            "holdfast: encryption needs the package cryptography, which the extra "
            "holdfast[crypto] names: pip install cryptography\n"
        ), verb
    assert not (files / "new.hf").exists()


def test_another_module_that_is_missing_is_a_fault(holdfast, database, monkeypatch):
    monkeypatch.setitem(sys.modules, "holdfast.cli.get", None)
    assert "a fault in Holdfast itself" in holdfast("get", database, "k").err


def test_every_verb_that_takes_a_database_takes_its_key(holdfast, files, database):
    key = ("--key-file", files / "raw")
    (files / "rows.csv").write_text("time,cpu\n1,10\n2,20\n")
    for verb in (
        ("put", database, "a", "1"),
        ("get", database, "a"),
        ("scan", database),
        ("delete", database, "a"),
        ("import", database, files / "rows.csv", "--key", "time"),
        ("export", database, "--keyspace", "rows"),
        ("stats", database),
        ("stats", database, "--json"),
        ("stats", database, "--watch", "--count", "1"),
        ("compact", database),
        ("verify", database),
        ("verify", database, "--json"),
    ):
        done = holdfast(*verb, *key)
        assert (done.status, done.err) == (0, ""), verb
        if verb[0] != "compact":
            refused = holdfast(*verb)
            assert refused.status == 1
            assert "encrypted" in refused.err, verb
    assert holdfast("export", database, "--keyspace", "rows", *key).out == "time,cpu\n1,10\n2,20\n"


def test_a_key_file_of_a_newer_version_is_no_damage(holdfast, files, database):
    """As `get` and `repair` do, `verify` says what it is."""
    (path,) = database.glob("KEYS.*")
    data = bytearray(path.read_bytes())
    data[8:10] = (2).to_bytes(2, "little")
    data[-8:] = checksum(data[:-8]).to_bytes(8, "little")
    path.write_bytes(data)
    for verb in (["verify"], ["verify", "--json"], ["get", "k"], ["repair"]):
        shown = holdfast(verb[0], database, *verb[1:], "--key-file", files / "raw")
        assert (shown.status, shown.out) == (1, ""), verb
        assert "key file version 2; this Holdfast reads 1" in shown.err, verb
        assert "damage" not in shown.err, verb


def test_verify_finds_damage_under_the_seal(holdfast, files, database):
    key = ("--key-file", files / "raw")
    table = next(database.glob("*.table"))
    data = bytearray(table.read_bytes())
    data[10] ^= 1
    table.write_bytes(data)
    shown = holdfast("verify", database, "--json", *key)
    assert shown.status == 1
    assert table.name in json.loads(shown.out)["errors"][0]["file"]


def test_dump_opens_sealed_files_with_the_key_and_says_so_without(holdfast, files, database):
    with engine.open(str(database), key=KEY) as db:
        db.flush()
        db[b"word"] = b"shown"
        kept = {path.name: path.read_bytes() for path in database.iterdir()}
    # As a crash leaves it, with a record in the log.
    for name, data in kept.items():
        (database / name).write_bytes(data)
    for path in [*database.glob("*.wal"), *database.glob("*.table"), *database.glob("*.manifest")]:
        refused = holdfast("dump", path)
        assert refused.status == 1
        assert "encrypted database; give its key" in refused.err
        shown = holdfast("dump", path, "--key-file", files / "raw")
        assert (shown.status, shown.err) == (0, ""), path
    newest = max(path for path in database.glob("*.wal") if path.name in kept)
    assert "shown" in holdfast("dump", newest, "--key-file", files / "raw").out


def test_rekey_changes_the_key_and_rewrites(holdfast, files, database):
    old, new = ("--key-file", files / "raw"), ("--key-file", files / "new")
    shown = holdfast("rekey", database, *old, "--new-key-file", files / "new")
    assert (shown.status, shown.out) == (0, "the new key is in force\n")
    assert holdfast("get", database, "k", *old).status == 1
    shown = holdfast("rekey", database, *new, "--rewrite")
    assert shown.status == 0
    assert "bytes of tables were rewritten" in shown.out
    assert not shown.out.startswith("0 bytes")
    assert holdfast("rekey", database, *new, "--rewrite").out.startswith("0 bytes")
    assert holdfast("get", database, "k", *new).out == "v\n"


def test_a_rewrite_that_is_cut_off_has_said_that_the_new_key_is_in_force(
    holdfast, files, database, monkeypatch
):
    real = engine.Database.rekey

    def rekey(self, key=None, *, rewrite=False, **options):
        if rewrite:
            raise KeyboardInterrupt
        real(self, key, **options)

    monkeypatch.setattr(engine.Database, "rekey", rekey)
    old, new = ("--key-file", files / "raw"), ("--key-file", files / "new")
    shown = holdfast("rekey", database, *old, "--new-key-file", files / "new", "--rewrite")
    assert (shown.status, shown.out) == (130, "the new key is in force\n")
    assert holdfast("get", database, "k", *new).out == "v\n"


def test_rekey_tells_programs_what_it_did(holdfast, files, database):
    keys = ("--key-file", files / "raw", "--new-key-file", files / "new")
    shown = holdfast("rekey", database, *keys, "--rewrite", "--json")
    first, second = (json.loads(line) for line in shown.out.splitlines())
    assert first == {"event": "rekeyed"}
    assert second["event"] == "rewritten"
    assert second["bytes"] > 0


def test_rekey_needs_both_keys(holdfast, files, database):
    assert "the key in force is missing" in holdfast("rekey", database).err
    assert "the new key is missing" in holdfast("rekey", database, "--key-file", files / "raw").err
    plain = files / "plain"
    engine.open(str(plain)).close()
    shown = holdfast("rekey", plain, "--key-file", files / "raw", "--rewrite")
    assert shown.status == 1
    assert "not encrypted" in shown.err


def test_a_watcher_reads_sealed_figures_of_another_process(start, files, database, root):
    import subprocess

    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import holdfast, sys, time\n"
                f"db = holdfast.open({str(database)!r}, key=bytes(range(32)))\n"
                "print('open', flush=True)\n"
                "while True:\n"
                "    db[b'x'] = b'y'\n"
                "    time.sleep(0.01)\n"
            ),
        ],
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout.readline() == b"open\n"
        watcher = start(
            *("stats", database, "--watch", "--json", "--count", "12", "--interval", "0.5"),
            *("--key-file", files / "raw"),
            stdout=subprocess.PIPE,
        )
        out, _ = watcher.communicate(timeout=60)
        states = [json.loads(line)["state"] for line in out.splitlines()]
        assert "open" in states
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
