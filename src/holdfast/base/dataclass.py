"""Dataclasses that cost next to nothing until they are used.

`dataclasses.dataclass` writes and compiles up to seven methods for each class, and loads `inspect`.
For the classes that a first open needs, that was more than half of its time. The `dataclass` of
this module makes the same classes: `__init__` is compiled when a class gets its first instance, the
other methods are general ones.

To everybody else they are dataclasses. The type checker is shown the standard module, whose
`fields`, `replace` and `asdict` get what they ask for, as does `inspect.signature`; it is made when
they ask (docs/adr/0038). What no class here uses is not there: fields in bases, `ClassVar`,
`InitVar`, `order`, `field(init=False)`.

Threads: two that make the first instances at once both compile, and get the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass", "field", "fields", "replace"]

T = TypeVar("T")

MISSING = object()
"""Stands for a default that a field does not have."""


class Field:
    """One field. Constant after construction of its class."""

    __slots__ = ("compare", "default", "default_factory", "metadata", "name", "type")

    def __init__(
        self,
        *,
        default: Any = MISSING,  # any value
        default_factory: Any = MISSING,  # or a callable
        compare: bool = True,
        metadata: Mapping[str, Any] = MappingProxyType({}),  # as in dataclasses
    ) -> None:
        self.name = ""
        self.type = ""
        self.default = default
        self.default_factory = default_factory
        self.compare = compare
        self.metadata = metadata


class Shape:
    """What `dataclass` was told of a class. Constant after construction, but for `twin`."""

    __slots__ = ("eq", "fields", "frozen", "key", "kw_only", "twin")

    def __init__(self, fields: tuple[Field, ...], *, frozen: bool, kw_only: bool, eq: bool) -> None:
        self.fields = fields
        self.frozen = frozen
        self.kw_only = kw_only
        self.eq = eq
        self.key = _key([entry.name for entry in fields if entry.compare])
        self.twin: type | None = None
        """The dataclass of the same fields, once somebody asked for something of it."""


def _dataclass(
    *, frozen: bool = False, kw_only: bool = False, slots: bool = False, eq: bool = True
) -> Callable[[type], type]:
    def decorate(kind: type) -> type:
        made: type = _made(kind, frozen=frozen, kw_only=kw_only, slots=slots, eq=eq)
        return made

    return decorate


def _fields(kind: Any) -> tuple[Field, ...]:  # an instance or its class
    shape: Shape = kind.__shape__
    return shape.fields


def _replace(this: T, /, **changes: Any) -> T:  # values of any type
    for entry in _fields(this):
        if entry.name not in changes:
            changes[entry.name] = getattr(this, entry.name)
    return type(this)(**changes)


if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, replace
else:
    dataclass, field, fields, replace = _dataclass, Field, _fields, _replace


# The classes that are made here, and their instances, are of no type that can be named.
def _made(kind: Any, *, frozen: bool, kw_only: bool, slots: bool, eq: bool) -> Any:
    """Return the class anew, with its methods and, where they are asked for, slots.

    Raises: ValueError for a default that can change, which all instances would share.
    """
    own = {name: value for name, value in vars(kind).items() if name not in _OF_EVERY_CLASS}
    hints = getattr(kind, "__annotations__", {})
    entries = tuple(_named(name, hint, own) for name, hint in hints.items())
    names = tuple(entry.name for entry in entries)
    own["__shape__"] = shape = Shape(entries, frozen=frozen, kw_only=kw_only, eq=eq)
    own["__qualname__"] = kind.__qualname__
    own["__match_args__"] = () if kw_only else names
    for name in _ASKED:
        own[name] = _Asked(name)
    own.setdefault("__repr__", _Asked("__repr__"))
    if eq:
        own["__eq__"], own["__hash__"] = _eq, _hash if frozen else None
    if frozen:
        own["__setattr__"], own["__delattr__"] = _setattr, _delattr
    if slots:
        own["__slots__"] = names
        if frozen:
            own["__getstate__"], own["__setstate__"] = _getstate, _setstate
    made: Any = type(kind.__name__, kind.__bases__, own)

    def first_init(self: object, *values: object, **named: object) -> None:
        made.__init__ = _init(made, shape)
        made.__init__(self, *values, **named)

    made.__init__ = first_init
    return made


_OF_EVERY_CLASS = ("__dict__", "__weakref__")
"""What a class has of its own that a copy of it must not have."""
_ASKED = ("__dataclass_fields__", "__dataclass_params__", "__signature__")
"""What others ask of a dataclass."""


def _named(name: str, hint: str, own: dict[str, Any]) -> Field:
    """Return the field of an annotation; its default leaves the class."""
    found = own.pop(name, MISSING)
    entry = found if isinstance(found, Field) else Field(default=found)
    if type(entry.default).__hash__ is None:
        raise ValueError(f"the default of {name} can change; use default_factory")
    entry.name, entry.type = name, hint
    return entry


def _init(kind: type, shape: Shape) -> Callable[..., None]:
    """Return the compiled `__init__` of a class."""
    known: dict[str, Any] = {"MISSING": MISSING, "set_field": object.__setattr__}
    parameters = ["self", "*"] if shape.kw_only else ["self"]
    lines = []
    for entry in shape.fields:
        name = value = entry.name
        if entry.default_factory is not MISSING:
            known[f"make_{name}"] = entry.default_factory
            parameters.append(f"{name}=MISSING")
            value = f"make_{name}() if {name} is MISSING else {name}"
        elif entry.default is not MISSING:
            known[f"default_{name}"] = entry.default
            parameters.append(f"{name}=default_{name}")
        else:
            parameters.append(name)
        lines.append(
            f"set_field(self, {name!r}, {value})" if shape.frozen else f"self.{name} = {value}"
        )
    if hasattr(kind, "__post_init__"):
        lines.append("self.__post_init__()")
    source = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"])
    exec(source, known)  # noqa: S102  the names of fields, as in dataclasses
    init: Callable[..., None] = known["__init__"]
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    init.__module__ = kind.__module__
    return init


def _key(names: list[str]) -> Callable[[object], object]:
    """Return a function that gives what is compared of an instance."""
    return attrgetter(*names) if names else lambda _: ()


# The class of what follows is any that `_made` made.
def _eq(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    key = self.__shape__.key
    return key(self) == key(other)


def _hash(self: Any) -> int:
    return hash(self.__shape__.key(self))


def _setattr(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415  dear, and seldom needed

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415  dear, and seldom needed

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: object) -> list[Any]:
    return [getattr(self, entry.name) for entry in _fields(self)]


def _setstate(self: object, state: list[Any]) -> None:
    for entry, value in zip(_fields(self), state, strict=True):
        object.__setattr__(self, entry.name, value)


class _Asked:
    """An attribute of a class that is taken from the standard module when somebody asks for it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        twin = _twin(owner)
        if self.name == "__repr__":
            return twin.__repr__.__get__(instance, owner)
        if self.name != "__signature__":
            return getattr(twin, self.name)
        if "__shape__" not in vars(owner):
            raise AttributeError(self.name)  # a subclass has a signature of its own
        from inspect import signature  # noqa: PLC0415  dear, and seldom needed

        return signature(twin)


def _twin(kind: Any) -> type:
    """Return the dataclass of the same fields."""
    import dataclasses  # noqa: PLC0415  dear, and seldom needed

    shape: Shape = kind.__shape__
    if shape.twin is None:
        own: dict[str, Any] = {"__annotations__": {}, "__module__": kind.__module__}
        for entry in shape.fields:
            own["__annotations__"][entry.name] = entry.type
            chosen: dict[str, Any] = {"compare": entry.compare, "metadata": entry.metadata}
            if entry.default is not MISSING:
                chosen["default"] = entry.default
            if entry.default_factory is not MISSING:
                chosen["default_factory"] = entry.default_factory
            own[entry.name] = dataclasses.field(**chosen)
        decorate = dataclasses.dataclass(frozen=shape.frozen, kw_only=shape.kw_only, eq=shape.eq)
        shape.twin = decorate(type(kind.__name__, (), own))
    return shape.twin
