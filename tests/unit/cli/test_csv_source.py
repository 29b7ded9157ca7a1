"""Reading CSV: what is taken, and which line is named when it is wrong."""

import io
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.cli import csv_source
from holdfast.cli.csv_source import CsvSource
from holdfast.cli.failure import CommandError


def read(tmp_path, data):
    path = tmp_path / "in.csv"
    path.write_bytes(data)
    with CsvSource(str(path)) as source:
        return source.header, list(source.rows())


def test_cells_are_the_texts_of_the_file(tmp_path):
    header, rows = read(tmp_path, b'a,b\n 1 ,"x ""y"", z"\n,\n"two\nlines",3\n')
    assert ("a", "b") == header
    assert [[" 1 ", 'x "y", z'], ["", ""], ["two\nlines", "3"]] == rows


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_marks_and_blank_lines_are_no_content(tmp_path, end):
    data = end.join([b"\xef\xbb\xbfa,b", b"1,2", b"", b"3,4", b""])
    assert (("a", "b"), [["1", "2"], ["3", "4"]]) == read(tmp_path, data)


def test_a_lone_cr_ends_a_line_too(tmp_path):
    header, rows = read(tmp_path, b'a,b\r1,"x\ry"\r\n\r3,"\r\n"\n5,6\r')
    assert ("a", "b") == header
    assert [["1", "x\ry"], ["3", "\r\n"], ["5", "6"]] == rows
    with pytest.raises(CommandError, match="line 3: the row has 1 cells"):
        read(tmp_path, b"a,b\r1,2\r3\r4,5\r")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 20])
def test_lines_are_those_of_the_standard_library_wherever_pieces_end(monkeypatch, size):
    """The pieces of a line are read apart; an end may lie between two of them."""
    monkeypatch.setattr(csv_source, "_BUFFER_BYTES", size)
    for letters in itertools.product(b"a\r\n", repeat=7):
        data = bytes(letters)
        lines = data.splitlines(keepends=True)
        assert lines == list(csv_source._lines_of(io.BytesIO(data))), data


def test_a_file_of_many_lines_that_end_in_cr_is_read_line_by_line(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(b"a\r" + b"12345678\r" * 1_000_000)
    with CsvSource(str(path)) as source:
        rows = source.rows()
        next(rows)
        assert 20 > source.bytes_read
        assert 999_999 == sum(1 for _ in rows)
        assert source.size == source.bytes_read


def test_rows_come_out_of_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(path.write_bytes, b"a\n" + b"1\n" * 100_000)
        with CsvSource(str(path)) as source:
            assert source.size is None
            assert [["1"]] * 100_000 == list(source.rows())
        written.result()


def test_the_last_line_needs_no_line_end(tmp_path):
    assert (("a",), [["1"]]) == read(tmp_path, b"a\n1")


def test_cells_may_be_long(tmp_path):
    cell = b"x" * 1_000_000
    assert [[cell.decode()]] == read(tmp_path, b"a\n" + cell + b"\n")[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b\n1,2\n1\n", "line 3: the row has 1 cells; the header has 2"),
        (b'a,b\n"1\n1",2\n\n1,2,3\n', "line 5: the row has 3 cells"),
        (b"a,b\n1,2\n1,\xff\n", "line 3: byte 3 of the line is not UTF-8"),
        (b"\xef\xbb\xbfa\xff\n", "line 1: byte 5 of the line"),
        (b'a,b\n1,"2\n', "line 2: the row is not CSV"),
        (b'a,b\n1,"2"3\n', "line 2: the row is not CSV"),
    ],
)
def test_a_fault_names_the_file_and_the_line(tmp_path, data, reason):
    with pytest.raises(CommandError, match=reason) as found:
        read(tmp_path, data)
    assert "in.csv" in str(found.value)


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real.csv").write_bytes(b"a\n1\n")
    (tmp_path / "link.csv").symlink_to("real.csv")
    with CsvSource(str(tmp_path / "link.csv")) as source:
        assert [["1"]] == list(source.rows())
