"""The file of a history: it comes back as it was, and nothing else is taken for one."""

import io
import json

import pytest

from holdfast.testing.broken_engines import FAULTS, broken_history
from holdfast.testing.history import History, HistoryError, read_history, write_history

HEAD = {"history": "append", "version": 1}
LINE = {
    "number": 1,
    "process": 1,
    "outcome": "ok",
    "began": 1,
    "ended": 2,
    "isolation": "snapshot",
    "operations": [["read", "a", [1]], ["append", "a", 2], ["scan", "a", "b", [["a", [1, 2]]]]],
}


def text(*entries):
    return io.StringIO("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("kind", ["append", "rmw"])
def test_a_history_that_was_written_is_read_again(kind):
    history, _ = broken_history("dirty read", kind, 1)
    file = io.StringIO()
    write_history(file, history)
    file.seek(0)
    again = read_history(file)
    assert again == History(kind, list(history.transactions))
    assert [list(map(type, one.operations)) for one in again.transactions] == [
        list(map(type, one.operations)) for one in history.transactions
    ]


def test_the_same_seed_gives_the_same_history():
    for name in FAULTS:
        assert broken_history(name, "append", 3) == broken_history(name, "append", 3)


def test_a_line_of_the_format_is_taken():
    assert len(read_history(text(HEAD, LINE)).transactions) == 1


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [HEAD | {"version": 2}],
        [HEAD | {"history": "other"}],
        [[1]],
        [HEAD, LINE | {"outcome": "maybe"}],
        [HEAD, LINE | {"isolation": "none"}],
        [HEAD, LINE | {"began": "1"}],
        [HEAD, LINE | {"ended": True}],
        [HEAD, {name: LINE[name] for name in LINE if name != "process"}],
        [HEAD, LINE | {"operations": [["read", "a", 1]]}],
        [HEAD, LINE | {"operations": [["read", "a", [1.5]]]}],
        [HEAD, LINE | {"operations": [["read", 1, []]]}],
        [HEAD, LINE | {"operations": [["put", "a", 1]]}],
        [HEAD, LINE | {"operations": [["append", "a", [1]]]}],
        [HEAD, LINE | {"operations": [["scan", "a", "b"]]}],
        [HEAD, LINE | {"operations": [["scan", "a", "b", [["a"]]]]}],
        [HEAD, LINE | {"operations": [["erase", "a", 1]]}],
        [HEAD | {"history": "rmw"}, LINE],
    ],
)
def test_what_is_no_history_is_refused(entries):
    with pytest.raises(HistoryError):
        read_history(text(*entries))


def test_a_line_that_is_not_json_is_named():
    with pytest.raises(HistoryError, match="line 2"):
        read_history(io.StringIO(json.dumps(HEAD) + "\n{\n"))
