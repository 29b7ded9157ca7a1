"""The merge functions of one database, by name, and the values of MERGE entries.

The value of a MERGE entry names its function: a byte with the number of a built-in one, or 0, the
size of a name and the name; the operand follows. So a key may have operands of several functions,
and what is read needs no settings. Part of the file format.

Thread safety: immutable; the functions are called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from holdfast.base import VALUE_BYTES_MAX, LimitError, MergeError, check_value
from holdfast.env import may_be_interrupted
from holdfast.merge.function import BUILT_IN, MergeFunction

NAMED = 0
"""Stands before the name of a function that is not built in."""
NAME_BYTES_MAX = 64
_SHOWN_BYTES = 48

_NUMBERS = {name: number for number, name, _ in BUILT_IN}
_NAMES = {number: name for number, name, _ in BUILT_IN}
_NONE: Mapping[str, MergeFunction] = MappingProxyType({})


class Merges:
    """The merge functions of a database: the built-in ones, and `named` ones of its user.

    One that is named is a `MergeFunction`, or a callable that is its `apply`.
    Raises: TypeError, LimitError for a bad name or function.
    """

    def __init__(
        self, named: Mapping[str, MergeFunction | Callable[..., bytes]] | None = None
    ) -> None:
        self._functions = {name: function for _, name, function in BUILT_IN}
        for name, function in (named or _NONE).items():
            if not isinstance(name, str):
                raise TypeError(f"the name of a merge function is str, not {type(name).__name__}")
            if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
                raise LimitError(
                    f"the name of a merge function has 1 to {NAME_BYTES_MAX} bytes; {name!r} has "
                    "not"
                )
            if name in _NUMBERS:
                raise LimitError(f"the merge function {name!r} is built in")
            if not callable(function) and not isinstance(function, MergeFunction):
                raise TypeError(
                    f"a merge function is a MergeFunction or a callable, not "
                    f"{type(function).__name__}"
                )
            self._functions[name] = (
                function if isinstance(function, MergeFunction) else MergeFunction(function)
            )
        # What stands before an operand, and what encodes it.
        self._encoders = {
            name: (_head(name), function.encode) for name, function in self._functions.items()
        }

    def value_of(self, function: str, operand: object) -> bytes:
        """Return the value of the MERGE entry for an operand as a user gives it.

        Raises: MergeError for a function that this database was not opened with; TypeError and
        LimitError for the operand.
        """
        encoder = self._encoders.get(function)
        if encoder is None:
            raise _unregistered(function)
        head, encode = encoder
        return check_value(head + encode(operand))

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        """Return the value of a key that had the value `base`, None for none, after the operands
        of MERGE entries with these values, the newest first.

        Raises: MergeError.
        """
        if len(entries) == 1:
            name, operand = split(key, entries[0])
            return self.apply(key, base, name, (operand,))
        value = base
        operands = [split(key, entry) for entry in reversed(entries)]
        for name, group in groupby(operands, key=lambda each: each[0]):
            value = self.apply(key, value, name, [operand for _, operand in group])
        return b"" if value is None else value

    def apply(
        self, key: bytes, value: bytes | None, function: str, operands: Sequence[bytes]
    ) -> bytes:
        """Return the value of a key after operands of one function, the oldest first.

        Raises: MergeError.
        """
        return _called(function, key, self._function(function).apply, value, operands)

    def combine(self, key: bytes, entries: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Return fewer MERGE entries that do what these do, both the newest first, each with the
        index of the newest one that it stands for.

        Raises: MergeError.
        """
        combined: list[tuple[int, bytes]] = []
        operands = [split(key, entry) for entry in entries]
        for name, group in groupby(range(len(entries)), key=lambda index: operands[index][0]):
            indexes = list(group)
            function = self._functions.get(name)
            if len(indexes) == 1 or function is None or function.combine is None:
                combined.extend((index, entries[index]) for index in indexes)
                continue
            head = entries[indexes[0]][: len(entries[indexes[0]]) - len(operands[indexes[0]][1])]
            value = _called(
                name, key, function.combine, [operands[index][1] for index in reversed(indexes)]
            )
            if len(value) > VALUE_BYTES_MAX - len(head):
                combined.extend((index, entries[index]) for index in indexes)
            else:
                combined.append((indexes[0], head + value))
        return combined

    def _function(self, name: str) -> MergeFunction:
        function = self._functions.get(name)
        if function is None:
            raise _unregistered(name)
        return function


def _head(name: str) -> bytes:
    """Return what names a function before its operands."""
    number = _NUMBERS.get(name)
    if number is not None:
        return bytes([number])
    encoded = name.encode()
    return bytes([NAMED, len(encoded)]) + encoded


def _unregistered(name: str) -> MergeError:
    return MergeError(
        f"the merge function {name!r} is not registered: "
        "open the database with merges={...} that has it",
        unregistered=name,
    )


def split(key: bytes, entry: bytes) -> tuple[str, bytes]:
    """Return (name of the function, operand) of a MERGE entry's value. Raises: MergeError."""
    number = entry[0] if entry else NAMED
    name = _NAMES.get(number)
    if name is not None:
        return name, entry[1:]
    size = entry[1] if len(entry) > 1 else 0
    end = 2 + size
    if number == NAMED and 0 < size <= NAME_BYTES_MAX and end <= len(entry):
        try:
            return entry[2:end].decode(), entry[end:]
        except UnicodeDecodeError:
            pass
    raise MergeError(
        f"an operand of key {_shown(key)} is of a newer version of Holdfast: it begins with "
        f"{entry[:2].hex()}"
    )


def _called(name: str, key: bytes, function: Callable[..., bytes], *arguments: object) -> bytes:
    """Return what a function returns, if it may be a value. Raises: MergeError."""
    try:
        value = function(*arguments)
    except MemoryError:
        raise
    except BaseException as error:
        # SystemExit and their like, too: one would end the thread that merges tables. An interrupt
        # of the user reaches the main thread only.
        if isinstance(error, KeyboardInterrupt) and may_be_interrupted():
            raise
        raise MergeError(
            f"the merge function {name!r} failed on key {_shown(key)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if type(value) is not bytes:
        raise MergeError(
            f"the merge function {name!r} returned {type(value).__name__} for key {_shown(key)}, "
            "and not bytes"
        )
    if len(value) > VALUE_BYTES_MAX:
        raise MergeError(
            f"the merge function {name!r} made {len(value)} bytes of key {_shown(key)}; "
            f"the limit is {VALUE_BYTES_MAX}"
        )
    return value


def _shown(key: bytes) -> str:
    if len(key) <= _SHOWN_BYTES:
        return repr(key)
    return f"{key[:_SHOWN_BYTES]!r}... ({len(key)} bytes)"
