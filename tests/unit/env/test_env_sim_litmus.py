"""What may be on a simulated disk after a crash: the litmus tests, on every profile.

Method: run a program, enumerate every crash state of every class, and name each by its files. For
each profile the names seen must match the pattern of its rule (nothing forbidden is possible) and
include the list (nothing allowed is missed).
"""

import re
from dataclasses import fields, replace

import pytest

from holdfast.env import PROFILES, FaultEnv, FaultRule, Profile, SimEnv, crash_states
from tests.unit.env.litmus import (
    CLASSES,
    LETTER,
    LITMUS,
    Litmus,
    create,
    described,
    durable,
    seen,
    shown,
    sync,
    write,
)
from tests.unit.env.litmus_page import PAGE, page

HONEST = [name for name in PROFILES if name != "liar"]
LISTED = [(profile, test) for test in LITMUS for profile in PROFILES if test.rule(profile)]
IDS = [f"{profile}-{test.sentence.replace(' ', '_')}" for profile, test in LISTED]


@pytest.mark.parametrize(("profile", "test"), LISTED, ids=IDS)
def test_litmus(profile: str, test: Litmus) -> None:
    rule = test.rule(profile)
    assert rule is not None
    pattern, required = rule
    names = test.outcomes(profile)
    assert set() == {name for name in names if not re.fullmatch(pattern, name)}
    assert set() == required - names


@pytest.mark.parametrize("test", LITMUS, ids=lambda test: test.sentence.replace(" ", "_"))
def test_the_weakest_profile_allows_what_the_stronger_ones_allow(test: Litmus) -> None:
    weakest = test.rule("posix-min")
    assert weakest is not None
    for profile in ("ext4-ordered", "xfs-delalloc", "cow-btrfs", "nvme-4k"):
        stronger = test.outcomes(profile)
        assert set() == {name for name in stronger if not re.fullmatch(weakest[0], name)}, profile
    for profile in ("no-psow", "no-psow-4k", "liar"):
        pattern, _ = test.rule(profile) or (".*", None)
        weaker = test.outcomes("posix-min")
        assert set() == {name for name in weaker if not re.fullmatch(pattern, name)}, profile


@pytest.mark.parametrize("test", LITMUS, ids=lambda test: test.sentence.replace(" ", "_"))
def test_a_disk_that_lies_is_one_on_which_the_last_syncs_were_not_called(test: Litmus) -> None:
    env = test.machine("posix-min")
    skips = FaultEnv(env, [FaultRule(kind="sync*", error=None, times=None)])
    test.program(skips)  # type: ignore[arg-type]  # no program uses more than Env has
    if skips.injected <= PROFILES["liar"].lying_syncs:
        assert seen(env) == test.outcomes("liar")
    else:
        assert seen(env) > test.outcomes("liar")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_killed_process_loses_nothing_and_a_cut_that_drops_all_leaves_what_was_synced(
    profile: str,
) -> None:
    for test in LITMUS:
        env = test.machine(profile)
        test.program(env)
        volatile = described(env)
        states = {state.name: described(state.build()) for state in crash_states(env, CLASSES)}
        assert volatile == states.get("all", states["none"]), test.sentence


@pytest.mark.parametrize("profile", HONEST)
def test_a_sync_after_a_lost_write_proves_nothing(profile: str) -> None:
    env = SimEnv(profile=profile)
    file = durable(env, "f", "A")
    write(file, 0, "B")
    file.lose_writes(revert=False)  # type: ignore[attr-defined]
    sync(file)
    assert "B" == shown(file.read_at(0, LETTER))
    assert {"f=A"} == seen(env)


@pytest.mark.parametrize("profile", [name for name in HONEST if not PROFILES[name].collateral])
def test_a_write_of_part_of_a_sector_never_damages_the_rest_of_that_sector(profile: str) -> None:
    env = SimEnv(profile=profile)
    file = durable(env, "f", "AA")
    file.write_at(100, b"B" * 50, site="write")
    for state in crash_states(env, CLASSES):
        data = state.build().open("f").read_at(0, 2 * LETTER)
        assert b"A" * 100 == data[:100]
        assert b"A" * (2 * LETTER - 150) == data[150:]


def test_the_damage_of_no_psow_4k_takes_4096_bytes_and_nothing_else() -> None:
    env = SimEnv(profile="no-psow-4k")
    file = durable(env, "f", "A" * 24)
    file.write_at(4096 + 100, b"B" * 50, site="write")
    sectors = set()
    for state in crash_states(env, CLASSES):
        data = state.build().open("f").read_at(0, 24 * LETTER)
        assert b"A" * 4096 == data[:4096] == data[8192:]
        sectors.add(data[4096:8192])
    assert {b"A" * 4096, bytes(4096)} < sectors
    assert bytes(100) + b"B" * 50 + bytes(3946) in sectors


def test_collateral_damage_takes_the_sector_and_nothing_else() -> None:
    env = SimEnv(profile="no-psow")
    file = durable(env, "f", "AAA")
    file.write_at(LETTER + 100, b"B" * 50, site="write")
    sectors = set()
    for state in crash_states(env, CLASSES):
        data = state.build().open("f").read_at(0, 3 * LETTER)
        assert b"A" * LETTER == data[:LETTER] == data[2 * LETTER :]
        sectors.add(data[LETTER : 2 * LETTER])
    written = b"A" * 100 + b"B" * 50 + b"A" * (LETTER - 150)
    assert {b"A" * LETTER, written, bytes(LETTER), bytes(100) + b"B" * 50 + bytes(362)} < sectors
    assert len(sectors) > 6


def test_collateral_damage_does_not_undo_a_truncation() -> None:
    env = SimEnv(profile="no-psow")
    file = durable(env, "f", "AAAA")
    file.truncate(100, site="truncate")
    file.write_at(0, b"B" * 50, site="write")
    sizes = {state.build().file_size("f") for state in crash_states(env, ["collateral"])}
    assert {100} == sizes


@pytest.mark.parametrize("profile", [name for name in PROFILES if not PROFILES[name].collateral])
def test_there_is_no_collateral_damage_elsewhere(profile: str) -> None:
    env = SimEnv(profile=profile)
    file = durable(env, "f", "A")
    file.write_at(100, b"B", site="write")
    assert [] == list(crash_states(env, ["collateral"]))


@pytest.mark.parametrize("profile", HONEST)
def test_only_a_liar_loses_syncs(profile: str) -> None:
    env = SimEnv(profile=profile)
    durable(env, "f", "A")
    assert [] == list(crash_states(env, ["lost-syncs"]))


def test_each_of_the_last_syncs_is_lost_alone_and_with_the_others() -> None:
    """Four files are synced in turn; the first sync is too long ago to have been a lie."""
    env = SimEnv(profile="liar")
    files = [create(env, name) for name in "abcd"]
    env.sync_dir("/", site="sync_dir")
    for file in files:
        write(file, 0, "X")
        sync(file)
    found = {described(state.build()) for state in crash_states(env, ["lost-syncs"])}
    expected = {f"a=X b={b} c={c} d={d}" for b in ("", "X") for c in ("", "X") for d in ("", "X")}
    assert expected == found


def test_a_lost_sync_takes_the_names_along_that_it_committed() -> None:
    env = SimEnv(profile=replace(PROFILES["ext4-ordered"], lying_syncs=1))
    sync(create(env, "f", "A"))
    create(env, "g")
    states = crash_states(env, ["lost-syncs"])
    assert {"", "f=A", "f=A g="} == {described(state.build()) for state in states}


def test_a_disk_that_reports_an_error_lied_about_no_sync_before() -> None:
    env = SimEnv(profile="liar")
    file = durable(env, "f", "A")
    write(file, 0, "B")
    file.lose_writes(revert=False)  # type: ignore[attr-defined]
    assert {"f=A"} == seen(env)


@pytest.mark.parametrize("profile", ["nvme-4k", "cow-btrfs"])
def test_a_sector_of_4096_bytes_is_there_or_not(profile: str) -> None:
    env = SimEnv(profile=profile)
    file = durable(env, "f", "A" * 24)
    write(file, 8, "B" * 16)
    whole = {"f=" + "A" * 24, "f=" + "A" * 8 + "B" * 16}
    halves = {"f=" + "A" * 8 + "B" * 8 + "A" * 8, "f=" + "A" * 16 + "B" * 8}
    assert whole | (halves if profile == "nvme-4k" else set()) == seen(env)


def test_a_larger_sector_is_not_torn() -> None:
    """A write of one aligned sector of 4096 bytes is there or not, on a disk that does not tear
    sectors.
    """
    env = SimEnv(profile="ext4-ordered", sector_bytes=4096)
    file = durable(env, "f", "A" * 16)
    write(file, 8, "B" * 8)
    assert {"f=" + "A" * 16, "f=" + "A" * 8 + "B" * 8} == seen(env)


@pytest.mark.parametrize("profile", ["posix-min", "xfs-delalloc"])
def test_room_that_grew_may_hold_stale_bytes_of_another_file(profile: str) -> None:
    env = SimEnv(profile=profile)
    durable(env, "1.wal", "XYZ")
    file = durable(env, "2.wal", "A")
    write(file, 1, "BB")
    assert (profile == "posix-min") == ("1.wal=XYZ 2.wal=AYZ" in seen(env))


def test_the_page_lists_the_litmus_tests_as_they_are() -> None:
    assert page() == PAGE.read_text(encoding="ascii"), "run python -m tests.unit.env.litmus_page"


def test_the_page_lists_the_profiles_as_they_are() -> None:
    rows = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="ascii"), re.MULTILINE)
    table = [row.split(" | ") for row in rows[: len(fields(Profile))]]
    assert ["rule", *PROFILES] == table[0]
    for name, *values in table[1:]:
        given = [getattr(profile, name.strip("`")) for profile in PROFILES.values()]
        shown_as = [{True: "yes", False: "no"}[v] if isinstance(v, bool) else str(v) for v in given]
        assert shown_as == values, name
    assert {f"`{field.name}`" for field in fields(Profile)} - {row[0] for row in table} == {
        "`name`"
    }
