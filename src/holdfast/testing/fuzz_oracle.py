"""What every execution of a fuzz target is judged by.

1. Decoders raise what they document and nothing else: whatever else comes out of a target is a
   finding, MemoryError and RecursionError included.
2. Both twins of a kernel give the same result or the same error, with the same file, offset and
   reason.
3. What a decoder accepts, its encoder writes again, byte for byte.

Time and memory are the loop's (`fuzz_run`).

Thread safety: pure functions.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Protocol

from holdfast.base import CorruptionError, FormatError
from holdfast.base.kernel import PURE

Documented = type[Exception] | tuple[type[Exception], ...]

DAMAGE = (CorruptionError, FormatError)
"""What every reader of a file may raise for its bytes."""

_VARIABLE = re.compile(r"[0-9]+|'[^']*'|\"[^\"]*\"|b'.*'")
_SHOWN = 300


class Finding(AssertionError):  # noqa: N818  what a fuzzer finds
    """A rule was broken."""


class Target(Protocol):
    """One decoder, or several that read the same bytes, under test."""

    name: ClassVar[str]
    traced: ClassVar[tuple[str, ...]]
    """Modules, below `holdfast`, whose lines guide the search: plain twins and Python decoders."""

    def seeds(self) -> Iterable[bytes]:
        """Return valid inputs, the same ones in every call."""
        ...

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        """Return another input made of `data`; `other` is a second one to take pieces from."""
        ...

    def run(self, data: bytes) -> Iterable[object]:
        """Decode `data` in every way and check the rules.

        Returns features, hashable, equal for inputs that went the same way. Raises: anything for a
        finding.
        """
        ...

    def memory_max(self, data: bytes) -> int:
        """Return how many bytes of Python memory one execution may take at most."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result, or the documented error that stands in its place."""

    value: Any = None
    error: tuple[object, ...] | None = None

    @property
    def is_error(self) -> bool:
        """Whether there is no result."""
        return self.error is not None

    @property
    def feature(self) -> str:
        """What is the same for inputs that are wrong in the same way."""
        if self.error is None:
            return "ok"
        return _VARIABLE.sub("", " ".join(map(str, self.error)))


def twins(kernel: str) -> tuple[Any, ...]:
    """Return the modules of a kernel: compiled and plain, in plain mode the plain one alone.

    Compiled kernels take compiled pages only, so in plain mode they could not be fed.
    """
    names = (f"{kernel}_py",) if PURE else (f"{kernel}_c", f"{kernel}_py")
    return tuple(importlib.import_module(f"holdfast.{name}") for name in names)


def attempt(documented: Documented, function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Return what a call gives, or which of the documented exceptions it raises."""
    try:
        return Outcome(value=function(*arguments))
    except documented as error:
        return Outcome(error=described(error))


def agree(modules: tuple[Any, ...], documented: Documented, name: str, *arguments: Any) -> Outcome:
    """Return the outcome that a function of all twins has. Raises: Finding when they differ."""
    outcomes = [attempt(documented, getattr(module, name), *arguments) for module in modules]
    return agreed(name, outcomes)


def described(error: Exception) -> tuple[object, ...]:
    """Return class and content of an exception, comparable."""
    if isinstance(error, CorruptionError):
        require(
            0 <= error.offset < 1 << 64 and error.reason != "",
            f"a CorruptionError without a place or a reason: {error!r}",
        )
        return "CorruptionError", error.file, error.offset, error.reason
    return type(error).__name__, str(error)


def require(condition: object, message: str) -> None:
    """Raise Finding unless `condition` holds."""
    if not condition:
        raise Finding(message)


def agreed(what: str, outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome that all twins have. Raises: Finding when they differ."""
    first, *others = outcomes
    for other in others:
        if first != other:
            raise Finding(f"{what}: the twins differ: {_shown(first)} and {_shown(other)}")
    return first


def _shown(outcome: Outcome) -> str:
    text = repr(outcome.error if outcome.is_error else outcome.value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
