"""Floor 5: merging tables so that reads stay quick and space comes back.

Policy and work are apart. The strategy of a keyspace (`strategy_of`) and `plan_range` compute a
`Plan` from an immutable version of it; `run_flush` and `run_compaction` carry one out. `run_ingest`
writes what a user hands in, and the strategy says where that goes. `write_pace` says how much
writers must wait, and a `Throttle` how much jobs must. `retain` says which versions may go; the
kernel `_merge` moves entries from a cursor into a table by that rule. Nothing here knows the log or
writes the manifest.
"""

from holdfast.compaction._merge import Retention, merge_into
from holdfast.compaction.choice import strategy_of
from holdfast.compaction.covered import pick_covered
from holdfast.compaction.job import (
    JobResult,
    JobStoppedError,
    UnreadableInputError,
    run_compaction,
    run_flush,
    run_ingest,
)
from holdfast.compaction.leveled import debt_bytes, level_limit, level_target, pick, scores
from holdfast.compaction.manual import RangeCompaction, plan_range
from holdfast.compaction.pacing import Pace, background_urgency, write_pace
from holdfast.compaction.placement import compression_at
from holdfast.compaction.plan import Plan
from holdfast.compaction.renewal import TableRenewal
from holdfast.compaction.retain import MergeStop, retained, retained_tombstones, stripe_of
from holdfast.compaction.strategy import Strategy
from holdfast.compaction.throttle import Throttle
from holdfast.compaction.window import window_of, window_start

__all__ = [
    "JobResult",
    "JobStoppedError",
    "MergeStop",
    "Pace",
    "Plan",
    "RangeCompaction",
    "Retention",
    "Strategy",
    "TableRenewal",
    "Throttle",
    "UnreadableInputError",
    "background_urgency",
    "compression_at",
    "debt_bytes",
    "level_limit",
    "level_target",
    "merge_into",
    "pick",
    "pick_covered",
    "plan_range",
    "retained",
    "retained_tombstones",
    "run_compaction",
    "run_flush",
    "run_ingest",
    "scores",
    "strategy_of",
    "stripe_of",
    "window_of",
    "window_start",
    "write_pace",
]
