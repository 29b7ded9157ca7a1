"""The pulse of an open database: what is done once a second while there is something to do.

A beat keeps the counters for the last minute's figures, and looks whether somebody asks for figures
to be published. It has no thread: the call of a user that finds a second gone by does it on its
way, and only calls that have looked at the clock anyway ask: commits through a group, and one `get`
and one scan in some.

Thread safety: safe. Two threads that find the same second gone by may both beat: no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base import mark
from holdfast.engine.history import BEAT_SECONDS
from holdfast.engine.latency import GET_SAMPLE
from holdfast.engine.live_writer import Publisher
from holdfast.engine.statistics import collect_stats, collect_totals

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


class Pulse:
    """Beats for one engine. It is the `Sampler` of its gets."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._beat_at = 0.0
        upkeep = engine.upkeep
        self._publisher = Publisher(
            engine.env,
            engine.folder,
            engine.settings.publish,
            collect=lambda: collect_stats(engine),
            submit=lambda job: upkeep.submit("live", 0, job),
            pause=upkeep.pause,
            keeps_files=lambda: engine.is_poisoned,
        )
        engine.state.sampler = self
        engine.state.sample_at = engine.state.read_count + GET_SAMPLE

    def start(self) -> None:
        """Begin to publish, if that is always done. Requires: it is open for writing."""
        self._publisher.start()

    def beat(self, now: float) -> None:
        """Do what is due at the time `now`."""
        if now < self._beat_at:
            return
        self._beat_at = now + BEAT_SECONDS
        engine = self._engine
        try:
            engine.history.note(collect_totals(engine, now))
            if engine.log is not None:
                self._publisher.look()
        except (OSError, MemoryError, RuntimeError):
            # Whoever called has done what was asked; RuntimeError: no thread could be started.
            mark("engine.beat_missed")

    def begin(self) -> float:
        """Begin to measure a get, and say which one is next."""
        state = self._engine.state
        state.sample_at = state.read_count + GET_SAMPLE
        return self._engine.env.monotonic()

    def end(self, began: object) -> None:
        """Take down what a get took that began then."""
        now = self._engine.env.monotonic()
        if isinstance(began, float):
            self._engine.latencies.get.record(now - began)
        self.beat(now)

    def scanned(self) -> None:
        """Do what is due when a scan begins; asked of some."""
        self.beat(self._engine.env.monotonic())
