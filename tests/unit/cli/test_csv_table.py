"""Rows become keys and values and come back; text becomes rows and comes back."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.csv_table import COLUMNS_KEY, ROWS_START, Columns, RowCoder, format_row

CELLS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.lists(CELLS, min_size=1, max_size=6, unique=True)


@given(st.data(), NAMES)
def test_rows_come_back_as_the_texts_that_they_were(data, names):
    key = data.draw(st.permutations(names))[: data.draw(st.integers(1, len(names)))]
    columns = Columns(tuple(names), tuple(key))
    assert columns == Columns.decode(columns.encode())
    row = data.draw(st.lists(CELLS, min_size=len(names), max_size=len(names)))
    coder = RowCoder(columns)
    packed = coder.encode(row)
    assert row == coder.decode(*packed)
    assert COLUMNS_KEY < ROWS_START <= packed[0]


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2)))
def test_rows_sort_by_their_key_cells(rows):
    coder = RowCoder(Columns(("b", "a"), ("a", "b")))
    keys = [coder.encode(row)[0] for row in rows]
    expected = sorted(range(len(rows)), key=lambda at: tuple(c.encode() for c in rows[at][::-1]))
    assert sorted(keys) == [keys[at] for at in expected]


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1))
def test_what_is_written_is_read_by_any_csv_reader(rows):
    text = "".join(format_row(row) + "\n" for row in rows)
    # As a file gives them: a line ends in a line feed and nowhere else.
    lines = [line + "\n" for line in text.split("\n")[:-1]]
    assert rows == list(csv.reader(lines, strict=True))


def test_only_cells_that_need_quotes_get_them():
    assert "a b,'c',d;e" == format_row(["a b", "'c'", "d;e"])
    assert '"a,b","say ""no""","two\nlines"' == format_row(["a,b", 'say "no"', "two\nlines"])
    assert '""' == format_row([""])
    assert "," == format_row(["", ""])


@pytest.mark.parametrize(
    ("names", "key", "reason"),
    [
        (("a", "b"), (), "at least one"),
        (("a", "b"), ("a", "a"), "once"),
        (("a", "b"), ("c",), "no column 'c' among a,b"),
        (("a", "b", "a"), ("a",), "several columns 'a'"),
    ],
)
def test_a_key_that_cannot_be_is_refused(names, key, reason):
    with pytest.raises(ValueError, match=reason):
        Columns(names, key)


def test_columns_that_are_not_of_the_key_may_have_one_name():
    coder = RowCoder(Columns(("", "a", ""), ("a",)))
    assert ["x", "k", "y"] == coder.decode(*coder.encode(["x", "k", "y"]))
