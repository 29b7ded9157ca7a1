"""The strategy that a keyspace's settings name."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.base import KeyspaceSettings
from holdfast.compaction.fifo import Fifo
from holdfast.compaction.leveled import Leveled
from holdfast.compaction.strategy import Strategy
from holdfast.compaction.tiered import SizeTiered
from holdfast.compaction.window import TimeWindow

_STRATEGIES: Mapping[str, Strategy] = {
    "leveled": Leveled(),
    "size-tiered": SizeTiered(),
    "time-window": TimeWindow(),
    "fifo": Fifo(),
}


def strategy_of(settings: KeyspaceSettings) -> Strategy:
    """Return the strategy of a keyspace."""
    return _STRATEGIES[settings.compaction]
