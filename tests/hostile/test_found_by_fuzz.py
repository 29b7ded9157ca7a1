"""What the fuzzers found, each as the smallest input that showed it."""

import pytest

from holdfast.base import DatabaseSettings
from holdfast.cli.csv_table import Columns


def test_settings_that_are_nested_too_deeply_are_no_settings():
    """The parser of TOML calls itself for each bracket: it ended in RecursionError."""
    for depth in (2_000, 5_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            DatabaseSettings.from_text("a=" + "[" * depth)


def test_settings_of_any_length_take_little_time():
    """The parser of TOML takes quadratic time for a long dotted name."""
    with pytest.raises(ValueError, match="the limit is 16384"):
        DatabaseSettings.from_text("a" + ".a" * (1 << 20) + " = 1")


def test_a_record_of_columns_that_is_nested_too_deeply_is_none():
    """The parser of JSON calls itself for each bracket: it ended in RecursionError."""
    with pytest.raises(ValueError, match="nested too deeply"):
        Columns.decode(b"[" * 100_000)


@pytest.mark.parametrize("name", [b"\\ud800", b"\xed\xa0\x80"])
def test_half_a_character_is_no_name_of_a_column(name):
    """JSON can spell half of a surrogate pair; an export of such a keyspace ended in
    UnicodeEncodeError.
    """
    record = b'{"format":1,"columns":["a","%s"],"key":["a"]}' % name
    with pytest.raises(ValueError, match="not Unicode text"):
        Columns.decode(record)
