"""Settings: validation at every bound, text that round-trips, unknown names refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import DatabaseSettings, KeyspaceSettings, LimitError
from holdfast.base.settings import (
    COMPRESSIONS,
    DROPPING_STRATEGIES,
    STRATEGIES,
    keyspace_settings_from,
    stored_settings,
)

NUMBERS = [
    (kind, entry)
    for kind in (KeyspaceSettings, DatabaseSettings)
    for entry in dataclasses.fields(kind)
    if entry.type == "int"
]


@pytest.mark.parametrize(("kind", "entry"), NUMBERS, ids=lambda part: getattr(part, "name", ""))
def test_each_number_may_have_its_bounds_and_nothing_outside_them(kind, entry):
    for value in (entry.metadata["lower"], entry.metadata["upper"], entry.default):
        assert getattr(kind(**needed(entry.name), **{entry.name: value}), entry.name) == value
    for value in (entry.metadata["lower"] - 1, entry.metadata["upper"] + 1):
        with pytest.raises(LimitError, match=entry.name):
            kind(**needed(entry.name), **{entry.name: value})


def needed(name):
    """Return what else must be given so that a setting may be."""
    return {"compaction": "fifo"} if name.startswith("retention") else {}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["retention_seconds", "retention_bytes"])
def test_only_a_strategy_that_drops_has_a_retention(strategy, name):
    assert getattr(KeyspaceSettings(compaction=strategy), name) == 0
    if strategy in DROPPING_STRATEGIES:
        assert getattr(KeyspaceSettings(compaction=strategy, **{name: 7}), name) == 7
    else:
        with pytest.raises(LimitError, match=rf"{name} is 7; the strategy {strategy} drops"):
            KeyspaceSettings(compaction=strategy, **{name: 7})


def test_a_setting_that_was_added_is_stored_only_where_it_is_not_the_default():
    """So an older version opens every database that does not use what is new."""
    assert "compaction" not in DatabaseSettings().to_text()
    assert "compaction" not in stored_settings(KeyspaceSettings())
    fifo = KeyspaceSettings(compaction="fifo", retention_seconds=60)
    added = set(stored_settings(fifo)) - set(stored_settings(KeyspaceSettings()))
    assert added == {"compaction", "retention_seconds"}
    assert 'compaction = "fifo"' in DatabaseSettings(keyspace=fifo).to_text()


def test_a_fixed_setting_of_a_keyspace_is_kept():
    kept = KeyspaceSettings(compaction="time-window", window_seconds=60)
    kept.check_kept(KeyspaceSettings(compaction="time-window", window_seconds=60, page_bytes=512))
    with pytest.raises(LimitError, match="window_seconds is 60 since the keyspace was created"):
        kept.check_kept(KeyspaceSettings(compaction="time-window", window_seconds=61))
    with pytest.raises(LimitError, match=r"compaction is 'time-window'.*cannot become 'leveled'"):
        kept.check_kept(KeyspaceSettings(window_seconds=60))


@pytest.mark.parametrize("value", [1.0, "4096", True, None])
def test_a_number_of_another_type_is_a_type_error(value):
    with pytest.raises(TypeError, match="memtable_bytes is an int"):
        KeyspaceSettings(memtable_bytes=value)


def test_compression_is_one_of_the_names():
    for name in COMPRESSIONS:
        assert KeyspaceSettings(compression=name).compression == name
    with pytest.raises(LimitError, match="one of none, lz4, zstd"):
        KeyspaceSettings(compression="brotli")


def test_the_alignment_of_the_log_is_a_power_of_two():
    assert DatabaseSettings(wal_alignment_bytes=512).wal_alignment_bytes == 512
    with pytest.raises(LimitError, match="power of two"):
        DatabaseSettings(wal_alignment_bytes=24)


def test_the_keyspace_of_database_settings_is_keyspace_settings():
    with pytest.raises(TypeError, match="keyspace is a KeyspaceSettings"):
        DatabaseSettings(keyspace={"page_bytes": 4096})


def test_settings_are_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DatabaseSettings().memory_bytes = 1 << 20
    with pytest.raises(TypeError):
        DatabaseSettings(1 << 20)


@st.composite
def settings_of(draw, kind):
    chosen = {}
    for entry in dataclasses.fields(kind):
        if entry.name == "wal_alignment_bytes":
            chosen[entry.name] = 2 ** draw(st.integers(3, 12))
        elif entry.type == "int":
            bounds = entry.metadata["lower"], entry.metadata["upper"]
            chosen[entry.name] = draw(st.integers(*bounds))
        elif entry.type == "str":
            chosen[entry.name] = draw(st.sampled_from(entry.metadata["choices"]))
        else:
            chosen[entry.name] = draw(settings_of(KeyspaceSettings))
    if chosen.get("compaction", "fifo") not in DROPPING_STRATEGIES:
        chosen |= {"retention_seconds": 0, "retention_bytes": 0}
    return kind(**chosen)


@given(settings_of(DatabaseSettings))
def test_text_gives_back_the_settings_it_was_written_from(settings):
    assert DatabaseSettings.from_text(settings.to_text()) == settings


def test_settings_that_text_leaves_out_have_their_defaults():
    assert DatabaseSettings.from_text("") == DatabaseSettings()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("colour = 1", LimitError),
        ("[keyspace]\ncolour = 1", LimitError),
        ("keyspace = 1", LimitError),
        ("memory_bytes = 1", LimitError),
        ("memory_bytes = 'much'", TypeError),
        ("memory_bytes =", ValueError),
    ],
)
def test_text_that_does_not_say_settings_is_refused(text, error):
    with pytest.raises(error):
        DatabaseSettings.from_text(text)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(LimitError, match=r"unknown setting 'colour'.*page_bytes"):
        keyspace_settings_from({"colour": 1})
