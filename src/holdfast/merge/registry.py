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
        alike = _alike(entries)
        if alike is not None:
            name, each = alike
            return self.apply(key, base, name, each[::-1])
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
        alike = _alike(entries)
        if alike is not None:
            name, each = alike
            return self._combine_one(key, name, range(len(entries)), entries, each)
        combined: list[tuple[int, bytes]] = []
        split_up = [split(key, entry) for entry in entries]
        operands = [operand for _, operand in split_up]
        for name, group in groupby(range(len(entries)), key=lambda index: split_up[index][0]):
            combined += self._combine_one(key, name, list(group), entries, operands)
        return combined

    def _combine_one(
        self,
        key: bytes,
        name: str,
        indexes: Sequence[int],
        entries: Sequence[bytes],
        operands: Sequence[bytes],
    ) -> list[tuple[int, bytes]]:
        """Combine those entries at `indexes`, neighbours of one function; see `combine`."""
        function = self._functions.get(name)
        first, last = indexes[0], indexes[-1]
        if first < last and function is not None and function.combine is not None:
            head = entries[first][: len(entries[first]) - len(operands[first])]
            oldest_first = operands[first : last + 1][::-1]
            value = _called(name, key, function.combine, oldest_first)
            if len(value) <= VALUE_BYTES_MAX - len(head):
                return [(first, head + value)]
        return [(index, entries[index]) for index in indexes]

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


ADD_HEAD = _head("add")
"""What stands before an amount in the value of a MERGE entry of "add"."""


def _unregistered(name: str) -> MergeError:
    return MergeError(
        f"the merge function {name!r} is not registered: "
        "open the database with merges={...} that has it",
        unregistered=name,
    )


def _alike(entries: Sequence[bytes]) -> tuple[str, list[bytes]] | None:
    """Return (name, operands in their order) when all entries are of one built-in function."""
    heads = {entry[:1] for entry in entries}
    name = _NAMES.get(heads.pop()[0]) if len(heads) == 1 and b"" not in heads else None
    return None if name is None else (name, [entry[1:] for entry in entries])


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
