"""The command as a process: signals, pipes, locks and full disks."""

import os
import signal
import subprocess

import pytest

import holdfast as engine


@pytest.fixture
def many(database):
    with engine.open(str(database)) as db:
        db.put_many((b"%06d" % key, b"x" * 50) for key in range(20_000))
    return database


def test_a_reader_that_leaves_is_no_error(start, many):
    child = start("scan", many, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline().startswith(b"000000\t")
    child.stdout.close()
    assert b"" == child.stderr.read()
    child.stderr.close()
    assert 0 == child.wait()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_output_without_room_is_a_failure(start, many):
    with open("/dev/full", "wb") as full:
        child = start("scan", many, stdout=full, stderr=subprocess.PIPE)
        _, message = child.communicate()
    assert 1 == child.returncode
    assert b"holdfast: No space left on device\n" == message


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "--json"], ["repair"]])
def test_a_reader_that_leaves_hides_no_damage(start, many, arguments):
    (table, *_) = many.glob("*.table")
    with table.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    child = start(
        arguments[0], many, *arguments[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    assert b"" == child.stderr.read()
    child.stderr.close()
    assert (4 if arguments == ["repair"] else 1) == child.wait()


def test_closed_standard_streams_are_empty_ones(start, database):
    def run(*arguments):
        child = start(*arguments, stderr=subprocess.PIPE, preexec_fn=lambda: os.closerange(0, 2))
        _, message = child.communicate()
        return child.returncode, message

    assert (0, b"") == run("put", database, "k", "-")
    assert (0, b"") == run("get", database, "k")
    assert (0, b"") == run("scan", database)
    with engine.open(str(database), create=False) as db:
        assert {b"k": b""} == dict(db)


def test_names_that_an_encoding_lacks_are_spelled_out(start, many):
    names = [os.fsencode(many.parent) + b"/copy\xff.hf", os.fsencode(f"{many.parent}/\u6f22.hf")]
    for encoding, name in zip(("utf-8:strict", "latin-1:strict"), names, strict=True):
        child = start(
            *("backup", many, os.fsdecode(name)),
            env=os.environ | {"PYTHONIOENCODING": encoding},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, message = child.communicate()
        assert (0, b"") == (child.returncode, message)
        assert (b"copy\\udcff.hf" if encoding == "utf-8:strict" else b"\\u6f22.hf") in out


def test_a_database_that_is_open_elsewhere_is_refused_with_the_holder(start, many):
    with engine.open(str(many)):
        child = start("scan", many, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, message = child.communicate()
    assert (1, b"") == (child.returncode, out)
    assert f"is locked by process {os.getpid()}".encode() in message
    assert 1 == message.count(b"\n")


def test_ctrl_c_closes_the_database_and_keeps_what_was_committed(start, database, tmp_path):
    reading, writing = os.pipe()
    child = start(
        *("import", database, "-", "--key", "k", "--keyspace", "t", "--batch", "10", "--json"),
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(reading)
    os.write(writing, b"k,v\n" + b"".join(b"%04d,x\n" % row for row in range(15)))
    assert b"opening" in child.stdout.readline()
    # The pipe stays open, so the import waits for more rows than it will ever get.
    os.write(writing, b"".join(b"%04d,x\n" % row for row in range(15, 2_000)))
    assert b"committed" in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, message = child.communicate()
    os.close(writing)
    assert 130 == child.returncode, message
    assert b"" == message
    assert b'"interrupted"' in out
    with engine.open(str(database), create=False) as db:
        # A clean close leaves nothing to replay: the log is empty.
        rows = len(db.keyspace("t")) - 1
        assert rows > 0
        assert rows % 10 == 0
        assert db.verify().ok


def test_files_that_are_named_may_be_pipes(start, database, tmp_path):
    """What a shell makes of <(...) is such a name, and has no path that leads to it."""

    def run(*arguments, given):
        """Run a verb with bytes in a pipe for each "%" among the arguments."""
        ends, named = [], []
        for argument in arguments:
            if "%" in str(argument):
                end, other = os.pipe()
                os.write(other, given[len(ends)])
                os.close(other)
                ends.append(end)
                argument = argument.replace("%", f"/dev/fd/{end}")
            named.append(argument)
        done = start(*named, pass_fds=ends, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for end in ends:
            os.close(end)
        out, err = done.communicate()
        return done.returncode, out, err

    key = bytes(range(32))
    put = ("put", database, "k", "@%", "--key-file", "%")
    assert run(*put, given=[b"a value", key]) == (0, b"", b"")
    get = ("get", database, "k", "--raw", "--key-file", "%")
    assert run(*get, given=[key.hex().encode() + b"\n"]) == (0, b"a value", b"")
    assert run(*get, given=[key + b"\n"])[0] == 2
    rows = ("import", database, "%", "--key", "a", "--key-file", "%")
    status, _, err = run(*rows, given=[b"a,b\n1,2\n", key])
    assert (status, b"give --keyspace" in err) == (2, True)
    assert run(*rows, "--keyspace", "rows", given=[b"a,b\n1,2\n", key])[0] == 0
    export = ("export", database, "--key-file", "%", "--keyspace", "rows")
    assert run(*export, given=[key]) == (0, b"a,b\n1,2\n", b"")
    # These take a file that can be read anywhere, and one that can be put in a file's place.
    for verb in (("dump", "%"), (*export, "--output", "%")):
        status, _, err = run(*verb, given=[key, b""])
        assert status == 1
        assert b"/dev/fd/" in err
        assert b"is no regular file" in err
