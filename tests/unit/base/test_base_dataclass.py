"""The dataclasses of `base` are dataclasses to everybody: `dataclasses` is the specification."""

import copy
import dataclasses
import inspect
import pickle
import pprint
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.base import dataclass as own

KINDS = ("own", "standard")


@pytest.fixture(params=KINDS)
def module(request: pytest.FixtureRequest) -> Any:  # either module, reached by name
    return own if request.param == "own" else dataclasses


def made(module: Any) -> SimpleNamespace:  # classes that no type checker follows
    """Return the same classes, made by either module."""

    @module.dataclass(frozen=True, slots=True)
    class Point:
        """A point."""

        x: int
        y: int = 2
        names: list[str] = module.field(default_factory=list, compare=False)

        def sum(self) -> int:
            return self.x + self.y

    @module.dataclass(frozen=True, kw_only=True, slots=True)
    class Named:
        first: str
        second: str = module.field(default="b", metadata={"doc": "the second"})

        def __post_init__(self) -> None:
            if not self.first:
                raise ValueError("first is empty")

    @module.dataclass(slots=True)
    class Counter:
        count: int = 0
        other: object = None

    @module.dataclass(eq=False, slots=True)
    class Owner:
        count: int

    @module.dataclass(frozen=True)
    class Plain:
        """Has room for more than its fields."""

        count: int

        def __repr__(self) -> str:
            return "shown"

    @module.dataclass(frozen=True, slots=True)
    class Single:
        value: float

    @module.dataclass(frozen=True, slots=True)
    class Empty:
        """Has no fields."""

    return SimpleNamespace(
        **{kind.__name__: kind for kind in (Point, Named, Counter, Owner, Plain, Single, Empty)}
    )


def outcome(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


STEPS: dict[str, Callable[[Any], object]] = {
    "positional": lambda kinds: kinds.Point(1, 3, ["a"]),
    "defaults": lambda kinds: kinds.Point(1),
    "named": lambda kinds: kinds.Point(y=5, x=4),
    "nothing given": lambda kinds: kinds.Point(),
    "too much given": lambda kinds: kinds.Point(1, 2, [], 4),
    "unknown name": lambda kinds: kinds.Point(1, z=3),
    "given twice": lambda kinds: kinds.Point(1, x=3),
    "only by name": lambda kinds: kinds.Named("a"),
    "by name": lambda kinds: kinds.Named(first="a"),
    "refused after it": lambda kinds: kinds.Named(first=""),
    "a factory makes each its own": lambda kinds: kinds.Point(1).names is kinds.Point(1).names,
    "equal": lambda kinds: kinds.Point(1) == kinds.Point(1, 2),
    "unequal": lambda kinds: kinds.Point(1) == kinds.Point(2),
    "not compared": lambda kinds: kinds.Point(1, 2, ["a"]) == kinds.Point(1, 2, ["b"]),
    "of another class": lambda kinds: kinds.Point(1) == kinds.Counter(1),
    "to a tuple": lambda kinds: kinds.Point(1) == (1, 2, []),
    "hash": lambda kinds: hash(kinds.Point(1)) == hash(kinds.Point(1, 2, ["a"])),
    "no hash": lambda kinds: hash(kinds.Counter()),
    "by identity": lambda kinds: kinds.Owner(1) == kinds.Owner(1),
    "hash by identity": lambda kinds: len({kinds.Owner(1), kinds.Owner(1)}),
    "nothing to compare": lambda kinds: (kinds.Empty() == kinds.Empty(), kinds.Empty()),
    "one field": lambda kinds: (kinds.Single(1.5) == kinds.Single(1.5), kinds.Single(1.5)),
    "set": lambda kinds: setattr(kinds.Point(1), "x", 2),
    "delete": lambda kinds: delattr(kinds.Point(1), "x"),
    "set where it may be": lambda kinds: setattr(kinds.Counter(1), "count", 2),
    "no room": lambda kinds: setattr(kinds.Counter(1), "z", 2),
    "room": lambda kinds: vars(kinds.Plain(1)),
    "own repr": lambda kinds: kinds.Plain(1),
    "method": lambda kinds: kinds.Point(1).sum(),
    "slots": lambda kinds: (kinds.Point.__slots__, kinds.Owner.__slots__),
    "match": lambda kinds: (kinds.Point.__match_args__, kinds.Named.__match_args__),
    "doc": lambda kinds: kinds.Point.__doc__,
    "names": lambda kinds: (kinds.Point.__module__, kinds.Point.__qualname__),
    "signature": lambda kinds: inspect.signature(kinds.Named),
    "signature of a dataclass": lambda kinds: inspect.signature(kinds.Point),
    "standard fields": lambda kinds: [
        (field.name, field.type, field.default, field.compare, dict(field.metadata))
        for kind in (kinds.Point, kinds.Named(first="a"))
        for field in dataclasses.fields(kind)
    ],
    "is a dataclass": lambda kinds: dataclasses.is_dataclass(kinds.Point),
    "asdict": lambda kinds: dataclasses.asdict(kinds.Counter(1, kinds.Counter(2))),
    "standard replace": lambda kinds: dataclasses.replace(kinds.Point(1, 3), x=2),
    "replace by a wrong name": lambda kinds: dataclasses.replace(kinds.Point(1, 3), z=2),
    "replace by a wrong value": lambda kinds: dataclasses.replace(kinds.Named(first="a"), first=""),
    "pretty": lambda kinds: pprint.pformat(kinds.Point(1, 3, ["a" * 30]), width=40),
    "copy": lambda kinds: copy.copy(kinds.Point(1, 3)),
    "deep copy": lambda kinds: copy.deepcopy(kinds.Counter(1, kinds.Point(1, 3, ["a"]))),
    "subclass": lambda kinds: type("Sub", (kinds.Point,), {"__slots__": ()})(1).sum(),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_happens_is_what_happens_with_the_standard_module(step: str) -> None:
    assert outcome(lambda: STEPS[step](made(own))) == outcome(
        lambda: STEPS[step](made(dataclasses))
    )


def test_fields_and_replace_agree_with_the_standard_module() -> None:
    point = made(own).Point(1, 3)
    assert [field.name for field in own.fields(point)] == ["x", "y", "names"]
    assert [field.type for field in own.fields(type(point))] == [
        field.type for field in dataclasses.fields(point)
    ]
    assert own.replace(point, x=2) == dataclasses.replace(point, x=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        own.replace(point, z=2)


def test_a_default_that_can_change_is_refused(module: Any) -> None:
    with pytest.raises(ValueError, match="use default_factory"):

        @module.dataclass(slots=True)
        class Shared:
            names: list[str] = []


def test_nothing_can_be_added_to_what_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'z'"):
        made(own).Point(1).z = 2


def test_a_ring_of_instances_can_be_shown(module: Any) -> None:
    counter = made(module).Counter(1)
    counter.other = counter
    assert repr(counter).endswith("Counter(count=1, other=...)")


def test_settings_can_be_pickled() -> None:
    from holdfast import DatabaseSettings, KeyspaceSettings

    settings = DatabaseSettings(keyspace=KeyspaceSettings(page_bytes=4096))
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_subclass_has_a_signature_of_its_own() -> None:
    class Sub(made(own).Point):  # type: ignore[misc]  a class made at run time
        def __init__(self, only: int) -> None:
            super().__init__(only)

    assert str(inspect.signature(Sub)) == "(only: int) -> None"
    assert Sub(4).sum() == 6


def test_a_dataclass_of_the_standard_module_can_extend_one() -> None:
    @dataclasses.dataclass(frozen=True)
    class More(made(own).Point):  # type: ignore[misc]  a class made at run time
        z: int = 9

    assert [field.name for field in dataclasses.fields(More)] == ["x", "y", "names", "z"]
    assert More(1).z == 9


def test_threads_may_make_the_first_instances_together() -> None:
    kinds = [made(own).Point for _ in range(50)]
    with ThreadPoolExecutor(8) as pool:
        for kind in kinds:
            assert set(pool.map(kind, [1] * 16)) == {kind(1)}


def test_a_class_that_is_only_mentioned_loads_and_compiles_nothing() -> None:
    code = (
        "import sys\n"
        "from holdfast.base import DatabaseSettings\n"
        "assert DatabaseSettings.__init__.__name__ == 'first_init'\n"
        "DatabaseSettings()\n"
        "assert DatabaseSettings.__init__.__name__ == '__init__'\n"
        "assert not {'dataclasses', 'inspect'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
