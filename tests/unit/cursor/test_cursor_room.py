"""Goal: the parts of the cursor room work together through the names that leave it."""

from __future__ import annotations

import holdfast.cursor
from holdfast.base import SEQ_MAX
from holdfast.cursor import Cursor, Entry, ListCursor, MergeCursor, RangeTombstones, UserCursor


class Countdown(Cursor):
    """A source written in Python: the keys 9 ... 0 as they sort, each once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_number = 0

    def stand(self, number: int) -> Entry | None:
        self.at_number = number
        return (b"%d" % number, 5, 1, b"counted") if 0 <= number <= 9 else None

    def _first(self) -> Entry | None:
        return self.stand(0)

    def _last(self) -> Entry | None:
        return self.stand(9)

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        order = (key, -trailer)
        return self.stand(sum((b"%d" % each, -(5 << 8 | 1)) < order for each in range(10)))

    def _seek_before(self, key: bytes) -> Entry | None:
        return self.stand(sum(b"%d" % each < key for each in range(10)) - 1)

    def _next(self) -> Entry | None:
        return self.stand(self.at_number + 1)

    def _prev(self) -> Entry | None:
        return self.stand(self.at_number - 1)


def test_all_names_are_listed() -> None:
    assert [
        "ColumnBuilder",
        "Columns",
        "Cursor",
        "Entry",
        "Gaps",
        "ListCursor",
        "MergeCursor",
        "MergeSource",
        "Overlay",
        "Owner",
        "PairCursor",
        "RangeTombstones",
        "ScanTally",
        "UserCursor",
    ] == holdfast.cursor.__all__


def test_a_user_sees_the_newest_of_python_and_list_sources() -> None:
    newer = ListCursor([(b"3", 9, 1, b"new"), (b"4", 9, 0, b""), (b"8", 4, 1, b"old")])
    tombstones = RangeTombstones([(b"5", b"7", 6), (b"7", b"8", 3)])
    expected = [
        (b"2", b"counted"),
        (b"3", b"new"),
        (b"7", b"counted"),
        (b"8", b"counted"),
    ]
    for reverse in (False, True):
        rows = UserCursor(
            MergeCursor([newer, Countdown()]),
            tombstones,
            SEQ_MAX,
            b"2",
            b"9",
            reverse,
        )
        assert (expected[::-1] if reverse else expected) == list(rows)


def test_an_older_snapshot_sees_what_was() -> None:
    newer = ListCursor([(b"3", 9, 1, b"new"), (b"4", 9, 0, b"")])
    tombstones = RangeTombstones([(b"0", b"9", 7)])
    source = MergeCursor([newer, Countdown()])
    assert [b"%d" % each for each in range(10)] == list(
        UserCursor(source, tombstones, snapshot=6, what=1)
    )
    source = MergeCursor([newer, Countdown()])
    assert [b"9"] == list(UserCursor(source, tombstones, snapshot=8, what=1))
