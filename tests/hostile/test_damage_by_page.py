"""The check of a closed folder finds every damage: each kind of page, record and header by each
fault. Reads of the open database and its `verify` agree, and so does the reader of the file alone.

Where a database was left by a killed process, the end of its log may look like a torn tail; nothing
else is taken for right unless it means nothing or is elsewhere again.
"""

from random import Random

import pytest

from holdfast.env import SimEnv
from holdfast.recovery import check_folder
from holdfast.testing.torture_damage import FOLDER, Damage, machine_with
from holdfast.testing.torture_flips import FAULTS, FLIP, Drawing, compare
from holdfast.testing.torture_flips_base import Unit, World, make_world
from holdfast.testing.torture_flips_judge import Judge

ATTEMPTS = 20


@pytest.fixture(scope="module", params=[True, False], ids=["closed", "killed"])
def world(request: pytest.FixtureRequest) -> World:
    return make_world(3, is_closed=request.param)


def found_offline(world: World, damage: Damage) -> bool:
    machine: SimEnv = machine_with(damage.files)
    try:
        return not check_folder(machine, FOLDER).ok
    finally:
        machine.cut_power()


def damaged(world: World, unit: Unit, fault: str, rng: Random) -> Damage | None:
    """Return a damage that changes something; None where the fault cannot change this unit."""
    for _ in range(ATTEMPTS):
        pieces = FAULTS[fault](rng, world, unit)
        changed = [name for name, data in pieces if data != world.files[name]]
        if changed:
            return Damage(fault, {**world.files, **dict(pieces)}, changed)
    return None


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_of_page_by_each_fault(world: World, fault: str) -> None:
    rng = Random(f"{world.title}/{fault}")
    judge = Judge(world)
    kinds: dict[str, list[Unit]] = {}
    for unit in world.units:
        if unit.size and unit.kind != "marker, name":
            kinds.setdefault(unit.kind, []).append(unit)
    tried = 0
    for kind, units in kinds.items():
        damage = damaged(world, rng.choice(units), fault, rng)
        if damage is None:
            continue
        tried += 1
        verdict = judge.judge(damage)
        compare(world, damage, verdict, rng)
        if all(name in world.tables for name in damage.changed):
            assert verdict in ("refused", "found"), (kind, damage.changed)
        if world.is_closed:
            assert verdict != "cut"
    assert tried > len(kinds) // 3


def test_one_bit_in_each_page_of_a_table(world: World) -> None:
    for unit in world.units:
        if unit.kind.startswith("table"):
            data = bytearray(world.files[unit.name])
            data[unit.start + unit.size // 2] ^= 16
            damage = Damage(FLIP, {**world.files, unit.name: bytes(data)}, [unit.name])
            assert found_offline(world, damage), unit


def test_a_page_that_was_never_written_is_missed(world: World) -> None:
    """A lost write leaves zeros, or what another table had there."""
    for unit in world.units:
        if not unit.kind.startswith("table"):
            continue
        others = [name for name in world.tables if name != unit.name]
        for old in (bytes(unit.size), world.files[others[0]][unit.start :][: unit.size]):
            data = world.files[unit.name]
            after = data[: unit.start] + old + data[unit.start + len(old) :]
            damage = Damage("lost write", {**world.files, unit.name: after}, [unit.name])
            assert after == data or found_offline(world, damage), unit


def test_a_record_that_was_never_written_is_missed_unless_it_is_the_last(world: World) -> None:
    drawing = Drawing(world)
    judge = Judge(world)
    records = [unit for unit in drawing.world.units if unit.kind == "log, record header"]
    batches = [unit for unit in drawing.world.units if unit.kind == "log, batch"]
    for header, batch in zip(records, batches, strict=True):
        data = world.files[header.name]
        end = batch.start + batch.size
        after = data[: header.start] + bytes(end - header.start) + data[end:]
        damage = Damage("lost write", {**world.files, header.name: after}, [header.name])
        verdict = judge.judge(damage)
        is_last = header is max(records, key=lambda unit: (unit.name, unit.start))
        expected = "cut" if is_last and not world.is_closed else "refused"
        assert verdict == expected, header
        assert found_offline(world, damage) == (verdict == "refused")
