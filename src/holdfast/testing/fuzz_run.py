"""The loop of a fuzz run: draw an input, mutate it, execute it, judge it, keep what is new.

1. A run is a function of target, corpus and seed: the same ones give the same inputs in the same
   order, and `digest` is equal. `--seconds` only says how far it goes. (The sample of traced
   executions guides the search, so Python 3.12, which reports lines in another way, may go another
   one.)
2. The corpus on disk comes first and unchanged, so a run also replays everything that was found.
3. An input is kept for the rest of the run when it shows a feature that none before it had, or, in
   the traced sample, reaches a line that none before it reached.
4. What is executed next stands in `scratch` before it is, so that an input survives the process
   that it kills.

Thread safety: one thread; targets may start others and end them.
"""

from __future__ import annotations

import hashlib
import mmap
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from random import Random

from holdfast.testing.fuzz_oracle import Finding, Target, require
from holdfast.testing.fuzz_reach import Reach

TRACED_EVERY = 16
MEASURED_EVERY = 61
"""One in so many executions is traced, and one has its memory measured; both are slow."""

STALE_EXECUTIONS = 4000
STALE_FACTOR = 8
"""When so many executions reached no new line, tracing becomes rarer by this factor."""

HEARTBEAT_EVERY = 64
KEPT_MAX = 4000
SHRINK_EXECUTIONS = 600
SLOW_SECONDS = 5.0
"""Processor time of one execution that is a finding, without the slowness of sanitizers."""

_SIZE_BYTES = 8
_SCRATCH_BYTES = 1 << 20


class Scratch:
    """Shared memory that holds the input of the execution under way."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            file.truncate(_SCRATCH_BYTES)
            self._map = mmap.mmap(file.fileno(), _SCRATCH_BYTES)

    def hold(self, data: bytes) -> None:
        """Write an input."""
        size = min(len(data), len(self._map) - _SIZE_BYTES)
        self._map[_SIZE_BYTES : _SIZE_BYTES + size] = data[:size]
        self._map[:_SIZE_BYTES] = size.to_bytes(_SIZE_BYTES, "little")

    @staticmethod
    def held(path: str) -> bytes:
        """Return the input that a process held when it ended."""
        with open(path, "rb") as file:
            raw = file.read()
        size = int.from_bytes(raw[:_SIZE_BYTES], "little")
        return raw[_SIZE_BYTES : _SIZE_BYTES + size]


@dataclass(slots=True)
class Fault:
    """Inputs that break a rule in the same way: the first one, and how many there were."""

    signature: str
    data: bytes
    trace: str
    execution: int
    count: int = 1


@dataclass(slots=True)
class Limits:
    """What one execution may take."""

    slow_seconds: float = SLOW_SECONDS
    traced_every: int = TRACED_EVERY
    measured_every: int = MEASURED_EVERY


@dataclass(slots=True)
class Fuzzer:
    """One run of one target. `corpus` are the inputs to start from."""

    target: Target
    corpus: list[bytes]
    seed: int = 1
    limits: Limits = field(default_factory=Limits)
    scratch: Scratch | None = None
    heartbeat: Callable[[], None] | None = None
    """Called every HEARTBEAT_EVERY executions, for whoever watches for hangs."""
    executions: int = 0
    seconds: float = 0.0
    faults: dict[str, Fault] = field(default_factory=dict)
    kept: list[bytes] = field(default_factory=list)
    """What this run adds to the corpus."""
    reach: Reach = field(init=False)
    _inputs: list[bytes] = field(init=False)
    _features: set[object] = field(default_factory=set)
    _line_found: int = 0
    """The execution that last reached a new line."""
    _digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=6))

    def __post_init__(self) -> None:
        require(self.corpus, "a run begins with at least one input")
        self.reach = Reach(self.target.traced)
        self._inputs = list(self.corpus)

    @property
    def digest(self) -> str:
        """A hash over all inputs and what became of them."""
        return self._digest.hexdigest()

    def run(self, executions: int | None = None, seconds: float | None = None) -> None:
        """Go on for so many executions or seconds, whichever ends first; always through the
        corpus.
        """
        began = time.monotonic()
        done = 0
        while True:
            is_over = (executions is not None and done >= executions) or (
                seconds is not None and time.monotonic() - began >= seconds
            )
            if is_over and self.executions >= len(self.corpus):
                break
            self.step()
            done += 1
        self.seconds += time.monotonic() - began

    def step(self) -> None:
        """Do one execution."""
        index = self.executions
        self.executions += 1
        if self.heartbeat is not None and index % HEARTBEAT_EVERY == 0:
            self.heartbeat()
        if index < len(self.corpus):
            data, is_traced = self.corpus[index], True
        else:
            rng = Random(f"{self.target.name}/{self.seed}/{index}")
            data = self._draw(rng)
            is_stale = index - self._line_found > STALE_EXECUTIONS
            every = self.limits.traced_every * (STALE_FACTOR if is_stale else 1)
            is_traced = index % every == 0
        lines = self.reach.count
        features = self._execute(data, is_traced, index)
        self._digest.update(len(data).to_bytes(8, "little") + data + repr(features).encode())
        new = [feature for feature in features if feature not in self._features]
        self._features.update(new)
        if self.reach.count > lines:
            self._line_found = index
        if index < len(self.corpus) or len(self._inputs) >= KEPT_MAX:
            return
        if new or self.reach.count > lines:
            self._inputs.append(data)
            self.kept.append(data)

    def _draw(self, rng: Random) -> bytes:
        """Return the next input. Half the time it comes of one that was new lately."""
        inputs = self._inputs
        low = len(inputs) * 3 // 4 if rng.random() < 0.5 else 0
        data = inputs[rng.randrange(low, len(inputs))]
        return self.target.mutate(rng, data, rng.choice(inputs))

    def _execute(self, data: bytes, is_traced: bool, index: int) -> tuple[object, ...]:
        """Return the features of an input; a finding is one of its own."""
        try:
            return tuple(self._judge(data, is_traced, index))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever comes out is the finding
            signature = _signature(error)
            known = self.faults.get(signature)
            if known is not None:
                known.count += 1
            else:
                trace = "".join(traceback.format_exception(error))
                self.faults[signature] = Fault(signature, data, trace, index)
            return (signature,)

    def _judge(self, data: bytes, is_traced: bool, index: int) -> Iterable[object]:
        if self.scratch is not None:
            self.scratch.hold(data)
        is_measured = index % self.limits.measured_every == self.limits.measured_every - 1
        began = time.process_time()
        if is_measured:
            features = self._measure(data)
        else:
            with self.reach.watched() if is_traced else nullcontext():
                features = tuple(self.target.run(data))
        took = time.process_time() - began
        if took > self.limits.slow_seconds:
            raise Finding(f"slow: {took:.1f} s for {len(data)} bytes")
        return features

    def _measure(self, data: bytes) -> tuple[object, ...]:
        """Execute under tracemalloc. Raises: Finding when too much memory was taken."""
        tracemalloc.start()
        try:
            features = tuple(self.target.run(data))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        limit = self.target.memory_max(data)
        if peak > limit:
            raise Finding(f"memory: {peak} bytes for {len(data)}, the limit is {limit}")
        return features

    def shrink(self, fault: Fault) -> bytes:
        """Return a shorter input that breaks the same rule in the same way."""
        data = fault.data
        left = SHRINK_EXECUTIONS
        size = len(data) // 2
        while size > 0 and left > 0:
            at = 0
            while at < len(data) and left > 0:
                shorter = data[:at] + data[at + size :]
                left -= 1
                if shorter and self._breaks(shorter, fault.signature):
                    data = shorter
                else:
                    at += size
            size //= 2
        return data

    def _breaks(self, data: bytes, signature: str) -> bool:
        try:
            tuple(self.target.run(data))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  the finding looked for
            return _signature(error) == signature
        return False


def _signature(error: BaseException) -> str:
    """Return what is the same for findings of one cause: class, place, and message without
    numbers.
    """
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "/testing/fuzz" not in frame.filename] or list(frames)
    place = inner[-1]
    where = f"{place.filename.rpartition('/holdfast/')[2]}:{place.name}"
    message = "".join(letter for letter in str(error)[:120] if not letter.isdigit())
    return f"{type(error).__name__} at {where}: {message}"
