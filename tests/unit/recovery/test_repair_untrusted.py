"""A repair without a manifest, rule by rule: which tables count, whose they are, how new they are.

Whole databases are repaired in test_repair; here each rule is given the situations that it decides.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import holdfast
from holdfast.base import CorruptionError, DatabaseSettings, FormatError, KeyspaceSettings
from holdfast.env import SimEnv
from holdfast.manifest import SalvagedEdits, VersionEdit
from holdfast.merge import Merges
from holdfast.recovery import Loss, LossKind, RepairReport
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.repair_tables import Piece, Readers, Workshop, components
from holdfast.recovery.repair_untrusted import (
    _Candidate,
    _current,
    _empty_version,
    _Found,
    _gather,
    _is_clean,
    _make_distinct,
    _name_keyspaces,
    _Newest,
    _report_doubts,
    _settings,
    _stamp,
)
from holdfast.sstable import TableInfo, TableOrigin, table_name
from holdfast.wal import SalvagedLog
from tests.hostile.folders import files_of, machine_with

FOLDER = "/db"
DAMAGE = CorruptionError("/db/x", 7, "a test")


def info(number: int, lower: bytes = b"a", upper: bytes = b"b", seq: int = 5) -> TableInfo:
    return TableInfo(
        number=number, file_id=bytes(16), size_bytes=999, lower=lower, upper=upper, seq_min=1,
        seq_max=seq, entry_count=3, delete_count=0, range_tombstone_count=0, raw_bytes=9,
        root_checksum=0, created_us=0,
    )  # fmt: skip


def origin(keyspace: int = 0, name: str = "default", *replaces: int) -> TableOrigin:
    return TableOrigin(keyspace=keyspace, name=name, settings=KeyspaceSettings(), replaces=replaces)


def table(number: int, *replaces: int, **known: Any) -> _Candidate:
    fields: dict[str, Any] = {
        "info": info(number),
        "origin": origin(0, "default", *replaces),
        "error": None,
        "is_readable": True,
        "keyspace": 0,
    }
    return _Candidate(number=number, **{**fields, **known})


def edits(*each: VersionEdit, first: int = 1) -> SalvagedEdits:
    return SalvagedEdits(edits=list(enumerate(each, first)))


def workshop() -> Workshop:
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    return Workshop(
        env=env,
        folder=FOLDER,
        target=FOLDER,
        numbers=FileNumbers(env, 100),
        merges=Merges(None),
        report=RepairReport(FOLDER, FOLDER),
    )


# --- which tables count


def current(candidates: list[_Candidate], known: SalvagedEdits | None = None) -> list[int]:
    return [each.number for each in _current(candidates, known or edits())]


def test_a_job_that_was_cut_off_does_not_count() -> None:
    """All that it was to replace is still there."""
    assert current([table(1), table(2), table(3, 1, 2)]) == [1, 2]


@pytest.mark.parametrize("left", [1, 2])
def test_a_job_of_which_something_is_replaced_was_complete(left: int) -> None:
    assert current([table(left), table(3, 1, 2), table(4)]) == [3, 4]


def test_a_job_that_an_edit_names_was_complete() -> None:
    named = edits(VersionEdit(tables_added=((0, 1, info(3)),)))
    assert current([table(1), table(2), table(3, 1, 2)], named) == [3]


def test_a_job_over_a_job_is_decided_from_the_newest_on() -> None:
    # The second one was complete, so all before it are gone, whatever the first one was.
    assert current([table(1), table(2), table(3, 1, 2), table(5, 3, 4)]) == [5]
    # The second one was cut off: the first decides, whose inputs are there, too.
    assert current([table(1), table(2), table(3, 1, 2), table(5, 3)]) == [1, 2]


def test_what_an_edit_removed_does_not_count_nor_what_that_replaced() -> None:
    removed = edits(VersionEdit(tables_removed=((0, 1, 3),)))
    assert current([table(1), table(2), table(3, 1, 2), table(6)], removed) == [6]
    assert current([table(1), table(3)], removed) == [1]


def test_tables_of_a_keyspace_that_was_dropped_do_not_count() -> None:
    dropped = edits(VersionEdit(keyspaces_dropped=(4,)))
    assert current([table(1), table(2, keyspace=4), table(3, origin=None)], dropped) == [1, 3]


# --- whose they are


def named(
    candidates: list[_Candidate],
    known: SalvagedEdits | None = None,
    monkeypatch: pytest.MonkeyPatch | None = None,
    logged: set[int] = frozenset(),  # type: ignore[assignment]  # never changed
) -> tuple[dict[int, str], list[Loss]]:
    """The names of the keyspaces by id, and what is said to be lost."""
    shop, found = workshop(), _Found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "holdfast.recovery.repair_untrusted.keyspaces_in",
            lambda env, log, origins: set(logged) - origins.keys(),
        )
        _name_keyspaces(shop, found, candidates, known or edits(), SalvagedLog())
    assert all(number == each.keyspace for number, each in found.origins.items())
    assert not any(each.replaces for each in found.origins.values())
    names = {number: each.name for number, each in sorted(found.origins.items())}
    return names, shop.report.losses


def test_tables_and_edits_name_keyspaces_and_edits_know_better() -> None:
    tables = [table(1, 9), table(2, origin=origin(3, "old"), keyspace=3)]
    assert named(tables) == ({0: "default", 3: "old"}, [])
    created = edits(VersionEdit(keyspaces_created=((3, "new", KeyspaceSettings()),)))
    assert named(tables, created) == ({0: "default", 3: "new"}, [])


def test_an_edit_that_says_another_keyspace_than_the_table_is_believed() -> None:
    assert named([table(1, origin=origin(3, "old"), keyspace=0)]) == ({0: "default"}, [])


def test_a_database_has_its_first_keyspace_unless_that_was_dropped() -> None:
    assert named([]) == ({0: "default"}, [])
    one = [table(1, origin=origin(3, "other"), keyspace=3)]
    assert named(one) == ({0: "default", 3: "other"}, [])
    assert named(one, edits(VersionEdit(keyspaces_dropped=(0,)))) == ({3: "other"}, [])
    assert named(one, edits(VersionEdit(keyspaces_dropped=(1,)))) == (
        {0: "default", 3: "other"},
        [],
    )


def test_a_keyspace_without_a_name_gets_one_and_that_is_said() -> None:
    names, losses = named([table(1, origin=None, keyspace=0), table(2, origin=None, keyspace=4)])
    assert names == {0: "default", 4: "keyspace-4"}
    (loss,) = losses
    assert (loss.kind, loss.file, loss.offset) == (LossKind.NAMES, FOLDER, 0)
    assert (loss.keyspace, loss.lower, loss.upper, loss.count) == ("keyspace-4", None, None, None)
    assert loss.reason == "keyspace 4 has lost its name; it is 'keyspace-4' now"


def test_a_keyspace_that_only_the_log_knows_is_there_unless_it_was_dropped() -> None:
    assert named([], logged={0, 2})[0] == {0: "default", 2: "keyspace-2"}
    assert named([], edits(VersionEdit(keyspaces_dropped=(2,))), logged={2})[0] == {0: "default"}


def test_a_table_of_nobody_is_of_the_only_keyspace() -> None:
    lost = table(7, origin=None, keyspace=-1)
    names, (loss,) = named([table(1), lost])
    assert (names, lost.keyspace) == ({0: "default"}, 0)
    assert (loss.kind, loss.file, loss.offset) == (LossKind.NAMES, f"{FOLDER}/{table_name(7)}", 0)
    assert (loss.keyspace, loss.lower, loss.upper, loss.count) == (None, b"a", b"b", 3)
    assert loss.reason == ("nothing says whose table it is; it was taken for one of 'default'")


def test_a_table_of_nobody_among_several_keyspaces_gets_one_of_its_own() -> None:
    tables = [
        table(1, origin=origin(3, "other"), keyspace=3),
        table(7, origin=None, info=None, keyspace=-1),
        table(8, origin=None, keyspace=-1),
    ]
    names, losses = named(tables)
    assert names == {0: "default", 3: "other", 4: "table-7", 5: "table-8"}
    assert [each.keyspace for each in tables] == [3, 4, 5]
    assert [(loss.lower, loss.upper, loss.count) for loss in losses] == [
        (b"", None, None), (b"a", b"b", 3),
    ]  # fmt: skip
    assert losses[0].reason.endswith("it is in a keyspace 'table-7' of its own now")


def test_a_table_of_nobody_where_only_another_keyspace_is_left_gets_its_own() -> None:
    tables = [
        table(1, origin=origin(3, "other"), keyspace=3),
        table(7, origin=None, keyspace=-1),
    ]
    dropped = edits(VersionEdit(keyspaces_dropped=(0,)))
    assert named(tables, dropped)[0] == {3: "other", 4: "table-7"}


def test_a_table_of_nobody_that_cannot_be_read_is_given_to_nobody() -> None:
    lost = table(7, origin=None, keyspace=-1, is_readable=False)
    assert named([lost]) == ({0: "default"}, [])
    assert lost.keyspace == -1


def test_of_keyspaces_with_one_name_the_newest_keeps_it() -> None:
    origins = {number: origin(number, "same") for number in (1, 2, 5)} | {0: origin()}
    _make_distinct(origins)
    assert {number: each.name for number, each in origins.items()} == {
        0: "default", 1: "same-1", 2: "same-2", 5: "same",
    }  # fmt: skip
    assert named(
        [table(1, origin=origin(1, "x"), keyspace=1), table(2, origin=origin(2, "x"), keyspace=2)]
    )[0] == {0: "default", 1: "x-1", 2: "x"}


# --- how new they are


def stamped(*candidates: _Candidate) -> tuple[TableInfo | None, list[Loss]]:
    """What becomes of the last one."""
    shop, found = workshop(), _Found(origins={0: origin(), 1: origin(1, "other")})
    _stamp(shop, found, list(candidates))
    return candidates[-1].info, shop.report.losses


def ingested(number: int, **known: Any) -> _Candidate:
    return table(number, info=info(number, seq=0), needs_number=True, **known)


def test_an_ingested_table_without_its_number_is_newer_than_all_before_it() -> None:
    older = table(1, info=info(1, b"x", b"z", seq=40))
    other = table(2, info=info(2, b"a", b"b", seq=50), keyspace=1)
    newer = table(9, info=info(9, b"x", b"z", seq=90))
    nothing = table(3, info=None, keyspace=1)
    found, losses = stamped(older, other, newer, nothing, ingested(7))
    assert found is not None
    assert (found.seq_min, found.seq_max, losses) == (51, 51, [])
    assert found == replace(info(7), seq_min=51, seq_max=51)


def test_the_first_table_of_all_gets_the_first_number() -> None:
    found, _ = stamped(ingested(7))
    assert found is not None
    assert (found.seq_min, found.seq_max) == (1, 1)


def test_that_an_ingested_table_lies_over_others_is_a_guess_and_said() -> None:
    over = table(9, info=info(9, b"aa", b"c", seq=9))
    _, (loss,) = stamped(over, ingested(7))
    assert (loss.kind, loss.file, loss.offset) == (LossKind.ORDER, f"{FOLDER}/{table_name(7)}", 0)
    assert (loss.keyspace, loss.lower, loss.upper, loss.count) == ("default", b"a", b"b", 3)
    apart = table(9, info=info(9, b"aa", b"c", seq=9), keyspace=1)
    assert stamped(apart, ingested(7))[1] == []
    # Of one that nothing describes nobody knows where it lies.
    (loss,) = stamped(table(9, info=None), ingested(7))[1]
    assert (loss.lower, loss.upper, loss.count) == (b"a", b"b", 3)
    assert stamped(table(9, info=None, keyspace=1), ingested(7))[1] == []


def test_an_ingested_table_that_nothing_describes_is_newer_than_all_before_it_too() -> None:
    """With the number 0 every older version of a key would win."""
    unknown = table(7, info=None, needs_number=True)
    found, (loss,) = stamped(table(1, info=info(1, seq=40)), unknown)
    assert (found, unknown.stamp) == (None, 41)
    assert (loss.kind, loss.keyspace, loss.lower, loss.upper, loss.count) == (
        LossKind.ORDER, "default", None, None, None,
    )  # fmt: skip
    later = ingested(8)
    stamped(unknown, later)
    assert later.stamp == 2, "numbers are given anew"
    alone = table(7, info=None, needs_number=True)
    assert stamped(alone)[1] == []


def test_a_table_of_nobody_gets_no_number() -> None:
    """Nothing of it can be read, so it belongs to no keyspace."""
    for known in (None, info(7, seq=0)):
        lost = table(7, info=known, needs_number=True, keyspace=-1, is_readable=False)
        assert stamped(table(1), lost) == (known, [])


def test_only_tables_that_need_a_number_get_one() -> None:
    assert stamped(table(1), table(7)) == (info(7), [])
    assert stamped(table(1), table(7, info=None)) == (None, [])


def test_two_ingested_tables_follow_each_other() -> None:
    first, second = ingested(3), ingested(7)
    stamped(first, second)
    assert first.info is not None
    assert second.info is not None
    assert (first.info.seq_max, second.info.seq_max) == (1, 2)


def test_an_ingest_stays_newer_than_what_it_replaced_whatever_of_it_is_damaged() -> None:
    """Unless its rows are what is damaged; the manifest is gone."""
    env = SimEnv(1)
    keys = [b"key %03d" % number for number in range(50)]
    with holdfast.open(FOLDER, env=env) as db:
        db.put_many((key, b"old") for key in keys)
        db.flush()
        db.ingest([(key, b"new") for key in keys])
    files = {
        name: data
        for name, data in files_of(env).items()
        if not name.endswith((".manifest", ".wal")) and not name.startswith("CURRENT")
    }
    table, data = max((name, data) for name, data in files.items() if name.endswith(".table"))
    outcomes = set()
    for at in range(0, len(data), 23):
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        machine = machine_with(files | {table: damaged})
        report = holdfast.repair(FOLDER, env=machine)
        kinds = {loss.kind for loss in report.losses}
        with holdfast.open(FOLDER, env=machine) as db:
            assert len(db) == len(keys)
            is_new = set(db.values()) == {b"new"}
        assert is_new or LossKind.ENTRIES in kinds, at
        outcomes.add(is_new)
        machine.cut_power()
    assert outcomes == {True, False}


def test_whole_tables_are_taken_and_others_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, found = workshop(), _Found(origins={0: origin(), 1: origin(1, "other")})
    asked: list[Any] = []
    made = Piece(info=info(50), folder=FOLDER, is_new=True)

    def rebuild(self: Any, number: int, info: Any, origin: Any, *, error: Any, stamp: int) -> Any:
        asked.append((number, info, origin.keyspace, error.reason, stamp))
        return None if number == 5 else made

    monkeypatch.setattr(Workshop, "rebuild", rebuild)
    candidates = [
        table(1),
        table(2, keyspace=1),
        table(3, error=DAMAGE),
        table(4, info=None, stamp=44),
        table(5, info=None, error=DAMAGE),
        table(6, keyspace=-1, error=DAMAGE),
        table(7, keyspace=-1),
    ]
    _gather(shop, found, candidates)
    assert found.pieces == {
        0: [Piece(info=info(1), folder=FOLDER, is_new=False), made, made],
        1: [Piece(info=info(2), folder=FOLDER, is_new=False)],
    }
    assert asked == [
        (3, info(3), 0, "a test", 0),
        (4, None, 0, "a table cannot be read", 44),
        (5, None, 0, "a test", 0),
    ]
    assert (shop.report.tables_kept, shop.report.tables_lost) == (2, 2)
    assert [(loss.file, loss.offset) for loss in shop.report.losses] == [
        ("/db/x", 7), ("/db/x", 7), (FOLDER, 0), (FOLDER, 0),
    ]  # fmt: skip


# --- what is known of the whole


@pytest.mark.parametrize(
    ("last", "log", "is_clean"),
    [
        (VersionEdit(clean=True, durable_lsn=9), SalvagedLog(manifest_edit=4), True),
        (VersionEdit(clean=True, durable_lsn=9), SalvagedLog(manifest_edit=5), False),
        (VersionEdit(durable_lsn=9), SalvagedLog(manifest_edit=4), False),
        (VersionEdit(clean=True), SalvagedLog(), True),
    ],
)
def test_an_end_was_clean_when_the_last_edit_says_so_and_the_log_no_other(
    last: VersionEdit, log: SalvagedLog, is_clean: bool
) -> None:
    first = VersionEdit(clean=not last.clean, durable_lsn=1 << 40)
    assert _is_clean(edits(first, last, first=3), log, 0) is is_clean


@pytest.mark.parametrize(
    ("lsn", "durable", "is_clean"), [(8, 9, True), (9, 9, True), (10, 9, False), (1, None, False)]
)
def test_an_end_was_not_clean_when_the_log_goes_on(
    lsn: int, durable: int | None, is_clean: bool
) -> None:
    log: Any = SimpleNamespace(manifest_edit=0, lsn_last=lsn)
    assert _is_clean(edits(VersionEdit(clean=True, durable_lsn=durable)), log, 0) is is_clean
    assert _is_clean(edits(), log, 0) is False


@pytest.mark.parametrize(("newest", "is_clean"), [(4, True), (5, False)])
def test_an_end_was_not_clean_when_nothing_of_the_newest_manifest_is_left(
    newest: int, is_clean: bool
) -> None:
    """What an older one says of its end was true before the newest was written."""
    known = edits(VersionEdit(clean=True, durable_lsn=9))
    known.newest = 4
    assert _is_clean(known, SalvagedLog(), newest) is is_clean


def test_the_new_version_has_all_keyspaces_and_gives_no_number_again() -> None:
    found = _Found(origins={0: origin(), 3: origin(3, "other")})
    version = _empty_version(found, edits(VersionEdit(), first=7), SalvagedLog(manifest_edit=5))
    assert {number: each.name for number, each in version.keyspaces.items()} == {
        0: "default", 3: "other",
    }  # fmt: skip
    assert (version.edit_seq, version.next_keyspace_id) == (8, 4)
    assert version.has_merges
    dropped = edits(VersionEdit(keyspaces_dropped=(6,)))
    version = _empty_version(found, dropped, SalvagedLog(manifest_edit=5))
    assert (version.edit_seq, version.next_keyspace_id) == (6, 7)
    assert _empty_version(_Found(), edits(), SalvagedLog()).next_keyspace_id == 0


def test_a_retention_that_may_have_changed_since_drops_nothing() -> None:
    """Through the public face: the manifest is lost, and tables name the older retention."""
    env = SimEnv()
    fifo = KeyspaceSettings(compaction="fifo")
    with holdfast.open("/db", env=env) as database:
        events = database.keyspace("events", settings=replace(fifo, retention_seconds=100))
        events[b"k"] = b"v"
        events.flush()
        database.keyspace("events", settings=fifo)
    for name in env.list_dir("/db"):
        if name.endswith(".manifest"):
            env.unlink(f"/db/{name}", site="test")
    env.sleep(1000)
    report = holdfast.repair("/db", env=env)
    assert any("'events' keeps everything now" in note for note in report.notes)
    with holdfast.open("/db", env=env) as database:
        events = database.keyspace("events")
        env.sleep(1000)
        events.compact()
        events.flush()
        database._engine.upkeep.wait_idle()
        assert {b"k": b"v"} == dict(events)
        kept = database._engine.version.keyspace_named("events")
        assert kept is not None
        assert kept.settings == fifo


def test_settings_that_are_lost_are_said_to_be() -> None:
    shop = workshop()
    kept = DatabaseSettings(wal_segment_bytes=12345 * 4096)
    text = edits(VersionEdit(settings_text=kept.to_text()))
    assert _settings(shop, text, SalvagedLog()) == kept
    assert shop.report.notes == []
    assert _settings(shop, edits(), SalvagedLog(alignment=512)).wal_alignment_bytes == 512
    assert _settings(shop, edits(), SalvagedLog()) == DatabaseSettings()
    assert [note[:37] for note in shop.report.notes] == [
        "the settings of the database are lost"
    ] * 2
    with pytest.raises(FormatError, match="cannot be used"):
        _settings(shop, edits(VersionEdit(settings_text="x")), SalvagedLog())


def test_what_cannot_be_proven_any_more_is_said() -> None:
    shop = workshop()
    _report_doubts(shop, is_clean=True, is_gapless=True)
    assert (shop.report.losses, len(shop.report.notes)) == ([], 1)
    _report_doubts(shop, is_clean=False, is_gapless=True)
    shop.report.damage.append(DAMAGE)
    _report_doubts(shop, is_clean=False, is_gapless=False)
    _report_doubts(shop, is_clean=True, is_gapless=False)
    assert [(loss.kind, loss.file, loss.offset) for loss in shop.report.losses] == [
        (LossKind.ORDER, FOLDER, 0), (LossKind.ORDER, "/db/x", 7), (LossKind.NAMES, "/db/x", 7),
    ]  # fmt: skip
    assert all(loss.concerns("any", b"key") for loss in shop.report.losses)


class Tables:
    """Readers of tables that have each key with the number that is given for it."""

    def __init__(self, versions: dict[int, dict[bytes, int]]) -> None:
        self.versions = versions
        self.asked: list[int] = []

    def open(self, folder: str, info: TableInfo) -> Any:
        self.asked.append(info.number)
        found = self.versions[info.number]
        return SimpleNamespace(get=lambda key, seq: (found[key], 1, b"") if key in found else None)


def test_the_newest_version_of_a_key_is_found_in_whatever_table_it_is() -> None:
    tables = Tables({1: {b"c": 4, b"m": 2}, 2: {b"c": 9}, 3: {b"b": 2}, 4: {b"x": 3}})
    pieces = [
        Piece(info=info(number, lower, upper, seq), folder=FOLDER, is_new=False)
        for number, lower, upper, seq in (
            (1, b"a", b"y", 4), (2, b"b", b"d", 9), (3, b"b", b"c", 8), (4, b"x", b"z", 3),
        )
    ]  # fmt: skip
    readers: Any = tables
    newest = _Newest(readers, pieces)
    assert [newest.find(key) for key in (b"c", b"b", b"x", b"a", b"z", b"\x00", b"m")] == [
        9, 2, 3, 0, 0, 0, 2,
    ]  # fmt: skip
    # A table that ends at the key, or has nothing as new, is not asked.
    tables.asked.clear()
    assert newest.find(b"c") == 9
    assert tables.asked == [2]
    assert _Newest(readers, []).find(b"a") == 0


def test_tables_that_overlap_by_others_are_one_group() -> None:
    ranges = [(1, b"a", b"c"), (2, b"b", b"f"), (3, b"e", b"g"), (4, b"g", b"h"), (5, b"a", b"b")]
    pieces = [
        Piece(info=info(number, lower, upper), folder=FOLDER, is_new=False)
        for number, lower, upper in reversed(ranges)
    ]
    groups = [[piece.info.number for piece in group] for group in components(pieces)]
    assert groups == [[1, 5, 2, 3], [4]]
    assert list(components([])) == []
    # One that lies within the one before it does not make the group end earlier.
    inner = [(1, b"a", b"z"), (2, b"b", b"c"), (3, b"d", b"e")]
    pieces = [
        Piece(info=info(number, lower, upper), folder=FOLDER, is_new=False)
        for number, lower, upper in inner
    ]
    assert [len(group) for group in components(pieces)] == [3]


def test_readers_are_opened_once_and_closed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = workshop()
    env = shop.env
    env.create(f"{FOLDER}/{table_name(1)}", site="test").close()
    with pytest.raises(CorruptionError), Readers(env) as readers:
        readers.open(FOLDER, info(1))
    assert env.unreturned() == []  # type: ignore[attr-defined]  # of the simulated machine
    closed: list[int] = []

    class Reader:
        def __init__(self, file: Any, number: int, *_: object) -> None:
            self.file, self.number = file, number

        def close(self) -> None:
            closed.append(self.number)
            self.file.close()

    monkeypatch.setattr("holdfast.recovery.repair_tables.TableReader", Reader)
    with Readers(env) as readers:
        assert readers.open(FOLDER, info(1)) is readers.open(FOLDER, info(1))
    assert closed == [1]
