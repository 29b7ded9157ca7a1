"""Both twins of `holdfast.sstable._reader` look at a handle before they read the page."""

from __future__ import annotations

from types import ModuleType

import pytest

from holdfast.base import CorruptionError
from holdfast.sstable import Handle, PageType
from tests.twin.test_sstable_reader import DATA, INFO, reader_of, twins


@twins
def test_a_page_behind_the_file_is_not_read(twin: ModuleType) -> None:
    reader = reader_of(twin, DATA, INFO)
    for handle in (Handle(len(DATA), 100, 1), Handle(0, 15, 1)):
        with pytest.raises(CorruptionError, match="a page handle") as caught:
            reader.read_page(handle, PageType.DATA)
        assert caught.value.offset == handle.offset
