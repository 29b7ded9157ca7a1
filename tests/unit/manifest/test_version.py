"""Version.apply: what it accepts, and that a broken invariant is refused with nothing changed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.base import SEQ_MAX, KeyspaceSettings
from holdfast.base.limits import KEYSPACE_NAME_BYTES_MAX
from holdfast.manifest import Version, VersionEdit
from holdfast.sstable import TableInfo

SETTINGS = KeyspaceSettings()


def table(
    number: int, lower: bytes = b"a", upper: bytes = b"b", seq: tuple[int, int] = (1, 9)
) -> TableInfo:
    return TableInfo(
        number=number,
        file_id=number.to_bytes(16, "big"),
        size_bytes=1000,
        lower=lower,
        upper=upper,
        seq_min=seq[0],
        seq_max=seq[1],
        entry_count=5,
        delete_count=1,
        range_tombstone_count=0,
        raw_bytes=900,
        root_checksum=77,
        created_us=123,
    )


@pytest.fixture
def base() -> Version:
    """Two keyspaces; the first has a table in level 0, two in level 1."""
    return Version().apply(
        VersionEdit(
            keyspaces_created=((0, "default", SETTINGS), (1, "other", SETTINGS)),
            tables_added=(
                (0, 0, table(1, b"a", b"z", (50, 60))),
                (0, 1, table(2, b"m", b"p")),
                (0, 1, table(3, b"a", b"c")),
            ),
            flushed_seq={0: 60, 1: 5},
            next_number=10,
            wal_first=4,
            wal_first_lsn=90,
            durable_lsn=100,
        )
    )


def test_an_edit_adds_moves_and_removes_tables(base: Version) -> None:
    """Level 1 is sorted, a moved table leaves one level and joins another, counters rise."""
    assert [t.number for t in base.keyspaces[0].levels[1]] == [3, 2]
    assert (base.edit_seq, base.last_seq, base.next_keyspace_id) == (1, 60, 2)
    moved = base.apply(
        VersionEdit(
            tables_removed=((0, 1, 3), (0, 0, 1)),
            tables_added=((0, 2, table(3, b"a", b"c")), (1, 0, table(4, seq=(1, 5)))),
            next_number=11,
            clean=True,
        )
    )
    levels = moved.keyspaces[0].levels
    assert [[t.number for t in level] for level in levels] == [[], [2], [3], [], [], [], []]
    for keyspace in moved.keyspaces.values():
        assert keyspace.numbers == {t.number for _, t in keyspace.tables()}
    assert moved.table_numbers() == {2, 3, 4}
    assert (moved.edit_seq, moved.next_number, moved.clean) == (2, 11, True)
    assert moved.apply(VersionEdit()).clean is False
    assert [t.number for t in base.keyspaces[0].levels[0]] == [1]


def test_level_0_is_newest_first_whatever_the_order_of_arrival(base: Version) -> None:
    newer = base.apply(
        VersionEdit(
            tables_added=(
                (0, 0, table(5, seq=(81, 90))),
                (0, 0, table(6, seq=(91, 95))),
                (0, 0, table(7, seq=(61, 80))),
            ),
            flushed_seq={0: 95},
        )
    )
    assert [t.number for t in newer.keyspaces[0].levels[0]] == [6, 5, 7, 1]
    assert newer.last_seq == 95


def test_tables_of_one_flush_share_numbers_when_their_keys_are_disjoint(base: Version) -> None:
    newer = base.apply(
        VersionEdit(
            tables_added=(
                (0, 0, table(5, b"a", b"m", seq=(61, 90))),
                (0, 0, table(6, b"m", b"z", seq=(70, 80))),
            ),
            flushed_seq={0: 90},
        )
    )
    assert [t.number for t in newer.keyspaces[0].levels[0]] == [5, 6, 1]


def test_a_dropped_keyspace_takes_its_tables_along_and_its_id_is_never_given_again(
    base: Version,
) -> None:
    dropped = base.apply(VersionEdit(keyspaces_dropped=(1,)))
    assert set(dropped.keyspaces) == {0}
    assert dropped.keyspace_named("other") is None
    with pytest.raises(ValueError, match="given before"):
        dropped.apply(VersionEdit(keyspaces_created=((1, "other", SETTINGS),)))
    again = dropped.apply(VersionEdit(keyspaces_created=((2, "other", SETTINGS),)))
    named = again.keyspace_named("other")
    assert named is not None
    assert named.id == 2


def test_dropping_and_creating_the_same_name_is_one_edit(base: Version) -> None:
    fresh = base.apply(
        VersionEdit(keyspaces_dropped=(1,), keyspaces_created=((2, "other", SETTINGS),))
    )
    assert set(fresh.keyspaces) == {0, 2}


def test_a_snapshot_edit_makes_the_same_version(base: Version) -> None:
    again = Version(edit_seq=base.edit_seq - 1).apply(base.snapshot_edit())
    assert again == base
    dropped = base.apply(VersionEdit(keyspaces_dropped=(1,), clean=True))
    assert Version(edit_seq=dropped.edit_seq - 1).apply(dropped.snapshot_edit()) == dropped
    told = dropped.apply(VersionEdit(settings_text="sync_interval_ms = 7\n", last_seq=77))
    assert told.snapshot_edit().settings_text == "sync_interval_ms = 7\n"
    assert Version(edit_seq=told.edit_seq - 1).apply(told.snapshot_edit()) == told
    assert base.snapshot_edit().settings_text is None


BAD: dict[str, tuple[VersionEdit, str]] = {
    "unknown keyspace": (VersionEdit(tables_added=((9, 0, table(4)),)), "does not exist"),
    "unknown keyspace dropped": (VersionEdit(keyspaces_dropped=(9,)), "does not exist"),
    "dropped keyspace used": (
        VersionEdit(keyspaces_dropped=(0,), tables_removed=((0, 0, 1),)),
        "does not exist",
    ),
    "flushed of unknown keyspace": (VersionEdit(flushed_seq={9: 1}), "does not exist"),
    "table absent": (VersionEdit(tables_removed=((0, 0, 2),)), "is not in level 0"),
    "removed twice": (VersionEdit(tables_removed=((0, 1, 2), (0, 1, 2))), "removed twice"),
    "listed twice": (VersionEdit(tables_added=((0, 3, table(2)),)), "listed twice"),
    "listed twice in one edit": (
        VersionEdit(tables_added=((0, 3, table(4)), (0, 4, table(4)))),
        "listed twice",
    ),
    "listed in two keyspaces": (
        VersionEdit(tables_added=((1, 3, table(2, seq=(1, 1))),)),
        "listed twice",
    ),
    "listed in two keyspaces at once": (
        VersionEdit(tables_added=((0, 3, table(4)), (1, 3, table(4, seq=(1, 1))))),
        "listed twice",
    ),
    "number never given": (VersionEdit(tables_added=((0, 3, table(10)),)), "never given"),
    "number 0": (VersionEdit(tables_added=((0, 3, table(0)),)), "never given"),
    "no such level": (VersionEdit(tables_added=((0, 7, table(4)),)), "no level 7"),
    "no such level to remove from": (VersionEdit(tables_removed=((0, 7, 2),)), "no level 7"),
    "overlap before": (VersionEdit(tables_added=((0, 1, table(4, b"b", b"d")),)), "overlap"),
    "overlap behind": (VersionEdit(tables_added=((0, 1, table(4, b"l", b"n")),)), "overlap"),
    "overlap within": (VersionEdit(tables_added=((0, 1, table(4, b"n", b"o")),)), "overlap"),
    "overlap around": (VersionEdit(tables_added=((0, 1, table(4, b"l", b"q")),)), "overlap"),
    "overlap in one edit": (
        VersionEdit(tables_added=((0, 2, table(4)), (0, 2, table(5)))),
        "overlap",
    ),
    "level 0 sequence overlap": (
        VersionEdit(tables_added=((0, 0, table(4, seq=(55, 60))),)),
        "share keys and numbers",
    ),
    "table not flushed": (
        VersionEdit(tables_added=((0, 0, table(4, seq=(61, 62))),)),
        "flushed only through 60",
    ),
    "empty range": (VersionEdit(tables_added=((0, 3, table(4, b"b", b"b")),)), "empty"),
    "flushed_seq back": (VersionEdit(flushed_seq={0: 59}), "flushed_seq goes back"),
    "next_number back": (VersionEdit(next_number=9), "next_number goes back"),
    "next_number too high": (VersionEdit(next_number=2**64 - 1), "exceeds"),
    "last_seq back": (VersionEdit(last_seq=59), "last_seq goes back"),
    "last_seq too high": (VersionEdit(last_seq=SEQ_MAX + 1), "exceeds"),
    "flushed_seq too high": (VersionEdit(flushed_seq={0: SEQ_MAX + 1}), "exceeds"),
    "wal_first back": (VersionEdit(wal_first=3), "wal_first goes back"),
    "wal_first_lsn back": (VersionEdit(wal_first_lsn=89), "wal_first_lsn goes back"),
    "wal_first_lsn too high": (VersionEdit(wal_first_lsn=102), "only 100 records are durable"),
    "durable_lsn back": (VersionEdit(durable_lsn=99), "durable_lsn goes back"),
    "next_keyspace_id back": (VersionEdit(next_keyspace_id=1), "next_keyspace_id goes back"),
    "name twice": (VersionEdit(keyspaces_created=((2, "other", SETTINGS),)), "have the name"),
    "name twice in one edit": (
        VersionEdit(keyspaces_created=((2, "x", SETTINGS), (3, "x", SETTINGS))),
        "have the name",
    ),
    "name empty": (VersionEdit(keyspaces_created=((2, "", SETTINGS),)), "1 to 255 bytes"),
    "name too long": (VersionEdit(keyspaces_created=((2, "x" * 256, SETTINGS),)), "1 to 255"),
    "id given before": (VersionEdit(keyspaces_created=((1, "x", SETTINGS),)), "given before"),
    "id too high": (VersionEdit(keyspaces_created=((2**32, "x", SETTINGS),)), "exceeds"),
    "settings of none": (VersionEdit(keyspaces_changed={2: SETTINGS}), "2 is changed but does not"),
    "settings of one that goes": (
        VersionEdit(keyspaces_dropped=(1,), keyspaces_changed={1: SETTINGS}),
        "1 is changed but does not",
    ),
    "a fixed setting": (
        VersionEdit(keyspaces_changed={1: replace(SETTINGS, compaction="fifo")}),
        "compaction is 'leveled' since",
    ),
}


def test_settings_of_a_keyspace_change_and_nothing_else_of_it(base: Version) -> None:
    other = replace(SETTINGS, level_ratio=SETTINGS.level_ratio + 1)
    version = base.apply(VersionEdit(keyspaces_changed={0: other}))
    assert version.keyspaces[0] == replace(base.keyspaces[0], settings=other)
    assert version.keyspaces[0].numbers == base.keyspaces[0].numbers
    assert version.keyspaces[1] == base.keyspaces[1]
    again = Version(edit_seq=version.edit_seq - 1).apply(version.snapshot_edit())
    assert again.keyspaces == version.keyspaces
    # In the edit that makes it, and with tables that come and go.
    made = base.apply(
        VersionEdit(keyspaces_created=((2, "x", SETTINGS),), keyspaces_changed={2: other})
    )
    assert made.keyspaces[2].settings == other


@pytest.mark.parametrize("case", BAD)
def test_an_edit_that_breaks_an_invariant_is_refused(base: Version, case: str) -> None:
    edit, reason = BAD[case]
    before = base.snapshot_edit()
    with pytest.raises(ValueError, match=reason):
        base.apply(edit)
    assert base.snapshot_edit() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda t: replace(t, file_id=b"short"),
        lambda t: replace(t, seq_min=8, seq_max=7),
        lambda t: replace(t, delete_count=6),
        lambda t: replace(t, entry_count=0, delete_count=0),
        lambda t: replace(t, size_bytes=10),
    ],
)
def test_a_table_that_cannot_be_is_refused(
    base: Version, change: Callable[[TableInfo], TableInfo]
) -> None:
    with pytest.raises(ValueError, match="table 4: "):
        base.apply(VersionEdit(tables_added=((0, 3, change(table(4))),)))


def test_a_version_begins_with_nothing() -> None:
    version = Version()
    assert dict(version.keyspaces) == {}
    assert (version.next_number, version.next_keyspace_id, version.last_seq) == (1, 0, 0)
    assert (version.wal_first, version.durable_lsn, version.edit_seq) == (0, 0, 0)
    assert (version.clean, version.settings_text) == (False, "")
    keyspace = version.apply(VersionEdit(keyspaces_created=((0, "default", SETTINGS),))).keyspaces[
        0
    ]
    assert (keyspace.flushed_seq, list(keyspace.tables())) == (0, [])


def test_the_greatest_numbers_are_taken_and_none_above(base: Version) -> None:
    def named(keyspace_id: int, name: str) -> VersionEdit:
        return VersionEdit(keyspaces_created=((keyspace_id, name, SETTINGS),))

    for greatest, above in (
        (VersionEdit(next_number=2**64 - 2), VersionEdit(next_number=2**64 - 1)),
        (VersionEdit(last_seq=SEQ_MAX), VersionEdit(last_seq=SEQ_MAX + 1)),
        (named(2**32 - 1, "last"), named(2**32, "last")),
        (named(2, "x" * KEYSPACE_NAME_BYTES_MAX), named(2, "x" * (KEYSPACE_NAME_BYTES_MAX + 1))),
    ):
        assert base.apply(greatest).edit_seq == 2
        with pytest.raises(ValueError):
            base.apply(above)
    assert base.apply(named(2**32 - 1, "last")).next_keyspace_id == 2**32


def test_a_version_cannot_be_changed_from_outside(base: Version) -> None:
    with pytest.raises(TypeError):
        base.keyspaces[5] = base.keyspaces[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        base.next_number = 5  # type: ignore[misc]


def test_what_is_known_of_the_first_segment_stays_until_another_one_is_first() -> None:
    """An ordinal and a salt are of one segment: lost, damage of it would go unnoticed; kept for
    another one, that would be refused.
    """
    first = VersionEdit(wal_first=4, wal_first_lsn=90, wal_first_salt=77, durable_lsn=100)
    version = Version().apply(first)
    assert (version.wal_first_lsn, version.wal_first_salt) == (90, 77)
    for kept in (VersionEdit(last_seq=1), VersionEdit(wal_first=4)):
        version = version.apply(kept)
        assert (version.wal_first, version.wal_first_lsn, version.wal_first_salt) == (4, 90, 77)
    other = version.apply(VersionEdit(wal_first=5))
    assert (other.wal_first, other.wal_first_lsn, other.wal_first_salt) == (5, 0, 0)
    other = version.apply(VersionEdit(wal_first=5, wal_first_lsn=95, wal_first_salt=78))
    assert (other.wal_first_lsn, other.wal_first_salt) == (95, 78)
