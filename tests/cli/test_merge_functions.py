"""Merge functions of one's own on the command line."""

import pytest

import holdfast as engine

MODULE = """
import holdfast

def keep_last(value, operands):
    return b",".join([*(value or b"").split(b","), *operands][-2:])

class Kinds:
    joined = holdfast.MergeFunction(lambda value, operands: b"+".join([value or b"", *operands]))

number = 3
"""
KEEP = "--merge-function=keep-last=bank_{}:keep_last"
JOIN = "--merge-function=join=bank_{}:Kinds.joined"


@pytest.fixture
def name(tmp_path, monkeypatch, request):
    """What the module of this test's program is called; it lies where the command is run."""
    name = f"bank_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", __import__("sys").path.copy())
    return name.removeprefix("bank_")


@pytest.fixture
def merged(database):
    def refuse(value, operands):
        raise ValueError("tables keep the operands")

    functions = {"keep-last": refuse, "join": refuse}
    with engine.open(str(database), merges=functions) as db:
        db[b"first"] = b"0"
        for index in range(4):
            db.merge(b"recent", "keep-last", b"%d" % index)
        # Last, so that a scan that fails has printed what comes before.
        db.merge(b"sum", "join", b"1")
    with engine.open(str(database), merges=functions) as db:
        db.merge(b"sum", "join", b"2")
    return database


def test_keys_are_shown_with_the_functions(holdfast, merged, name):
    result = holdfast("get", merged, "recent", KEEP.format(name))
    assert (0, "2,3\n", "") == (result.status, result.out, result.err)
    result = holdfast("scan", merged, KEEP.format(name), JOIN.format(name))
    assert (0, "first\t0\nrecent\t2,3\nsum\t+1+2\n") == (result.status, result.out)


@pytest.mark.parametrize(
    "verb", [("get", "recent"), ("scan",), ("scan", "--prefix", "recent"), ("scan", "--json")]
)
def test_a_function_that_is_missing_names_the_option(holdfast, merged, name, verb):
    result = holdfast(verb[0], merged, *verb[1:], JOIN.format(name))
    assert 1 == result.status
    assert "recent" not in result.out
    assert "'keep-last'" in result.err
    assert "--merge-function keep-last=MODULE:FUNCTION" in result.err
    result = holdfast("get", merged, "first")
    assert (0, "0\n") == (result.status, result.out)


def test_a_compaction_folds_with_the_function_and_keeps_operands_without(holdfast, merged, name):
    assert 0 == holdfast("compact", merged).status
    assert 1 == holdfast("get", merged, "recent").status
    assert 0 == holdfast("compact", merged, KEEP.format(name)).status
    assert "2,3\n" == holdfast("get", merged, "recent").out, "it is a value now"
    assert 1 == holdfast("get", merged, "sum").status


@pytest.mark.parametrize(
    ("option", "status", "said"),
    [
        ("keep-last", 2, "NAME=MODULE:FUNCTION"),
        ("keep-last=module", 2, "NAME=MODULE:FUNCTION"),
        ("=module:function", 2, "NAME=MODULE:FUNCTION"),
        ("add=bank_{}:keep_last", 2, "built in"),
        ("keep-last=bank_{}:number", 2, "not int"),
        ("keep-last=bank_{}:absent", 1, "has no attribute 'absent'"),
        ("keep-last=no_such_module_at_all:f", 1, "No module named 'no_such_module_at_all'"),
    ],
)
def test_what_is_no_function_is_said_before_anything_is_opened(
    holdfast, merged, name, option, status, said
):
    given = option.format(name)
    result = holdfast("get", merged, "recent", "--merge-function", given)
    assert status == result.status
    assert "--merge-function" in result.err
    assert given in result.err
    assert said in result.err
    assert "" == result.out


def test_a_name_that_is_given_twice_is_refused(holdfast, merged, name):
    option = KEEP.format(name)
    result = holdfast("get", merged, "recent", option, option)
    assert 2 == result.status
    assert "was given before" in result.err


def test_a_module_that_fails_is_said_in_one_line(holdfast, merged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", __import__("sys").path.copy())
    (tmp_path / "broken_bank.py").write_text("raise SystemError('not\\ntoday')")
    result = holdfast("get", merged, "recent", "--merge-function=a=broken_bank:f")
    assert 1 == result.status
    assert "SystemError: not today" in result.err
