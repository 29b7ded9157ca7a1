"""Goal: a column has the values that were added, one behind the other."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cursor import _column_c, _column_py

TWINS = [pytest.param(_column_c, id="c"), pytest.param(_column_py, id="py")]


@pytest.mark.parametrize("twin", TWINS)
@given(values=st.lists(st.binary(max_size=40) | st.binary(max_size=2).map(lambda one: one * 4000)))
def test_a_column_has_the_values_in_their_order(twin: ModuleType, values: list[bytes]) -> None:
    column = twin.ColumnBuilder()
    for value in values:
        column.add(value)
    data, offsets = column.finish()
    assert b"".join(values) == data
    assert "q" == offsets.format
    assert len(values) + 1 == len(offsets)
    assert values == [bytes(data[offsets[at] : offsets[at + 1]]) for at in range(len(offsets) - 1)]
    assert data.readonly
    assert offsets.readonly


@pytest.mark.parametrize("twin", TWINS)
def test_more_values_than_there_was_room_for_at_first(twin: ModuleType) -> None:
    column = twin.ColumnBuilder()
    for _ in range(20_000):
        column.add(b"abc")
    data, offsets = column.finish()
    assert b"abc" * 20_000 == data
    assert list(range(0, 60_001, 3)) == offsets.tolist()


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("value", [bytearray(b"a"), "a", None])
def test_what_is_no_bytes_is_refused(twin: ModuleType, value: Any) -> None:
    column = twin.ColumnBuilder()
    with pytest.raises(TypeError, match="a value is bytes, not"):
        column.add(value)
    data, offsets = column.finish()
    assert (b"", [0]) == (bytes(data), offsets.tolist())


@pytest.mark.parametrize("twin", TWINS)
def test_nothing_is_added_to_a_column_that_is_finished(twin: ModuleType) -> None:
    column = twin.ColumnBuilder()
    column.add(b"a")
    data, offsets = column.finish()
    with pytest.raises(ValueError, match="the column is finished"):
        column.add(b"y" * 4000)
    assert (b"a", [0, 1]) == (bytes(data), offsets.tolist())
