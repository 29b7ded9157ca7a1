"""Floor 5: merging tables so that reads stay quick and space comes back.

Policy and work are apart. `pick` and `plan_range` compute a `Plan` from an immutable version of a
keyspace; `run_flush` and `run_compaction` carry one out; `write_pace` says how much writers must
wait. `retain` says which versions may go; the kernel `_merge` moves entries from a cursor into a
table by that rule. Nothing here knows the log or writes the manifest.
"""

from holdfast.compaction._merge import Retention, merge_into
from holdfast.compaction.job import (
    JobResult,
    JobStoppedError,
    UnreadableInputError,
    run_compaction,
    run_flush,
)
from holdfast.compaction.leveled import debt_bytes, level_target, pick, scores
from holdfast.compaction.manual import RangeCompaction, plan_range
from holdfast.compaction.pacing import Pace, write_pace
from holdfast.compaction.plan import Plan
from holdfast.compaction.retain import MergeStop, retained, retained_tombstones, stripe_of

__all__ = [
    "JobResult",
    "JobStoppedError",
    "MergeStop",
    "Pace",
    "Plan",
    "RangeCompaction",
    "Retention",
    "UnreadableInputError",
    "debt_bytes",
    "level_target",
    "merge_into",
    "pick",
    "plan_range",
    "retained",
    "retained_tombstones",
    "run_compaction",
    "run_flush",
    "scores",
    "stripe_of",
    "write_pace",
]
