"""How urgent the background work of a database is: what a limit on its rate gives way to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.compaction import Throttle, background_urgency, strategy_of

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


def throttle_of(engine: Engine) -> Throttle:
    """Return what keeps the background work of a database to the rate of its settings."""
    return Throttle(
        engine.env,
        engine.settings.background_bytes_per_second,
        urgency=lambda: background_urgency_of(engine),
        pause=engine.upkeep.pause,
    )


def background_urgency_of(engine: Engine) -> float:
    """Return the greatest urgency of any measure by which writers are slowed or stopped, from 0 to
    1; 1 also when somebody waits for a flush, or for the end. Takes no mutex of the engine.
    """
    if engine.awaited or engine.upkeep.is_stopped:
        return 1.0
    worst, is_frozen, held = 0.0, False, 0
    for tree in list(engine.trees.values()):
        settings = tree.version.settings
        strategy = strategy_of(settings)
        worst = max(
            worst,
            background_urgency(
                level0_count=strategy.run_count(tree.version),
                frozen_count=len(tree.frozen),
                active_fill=tree.active.bytes_used / settings.memtable_bytes,
                settings=settings,
                debt_bytes=strategy.debt_bytes(tree.version),
            ),
        )
        is_frozen = is_frozen or bool(tree.frozen)
        held += tree.memtable_bytes
    if is_frozen:
        limit, memory = engine.settings.wal_bytes_max, engine.settings.memory_bytes
        worst = max(worst, engine.log_bytes / limit - 1.0, (4 * held / memory - 1.0) / 2)
    return min(worst, 1.0)
