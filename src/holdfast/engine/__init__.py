"""Floor 8: the engine introduces the rooms to each other and shows users one face.

`open_database` recovers a folder and returns a `Database`; keyspaces, snapshots, statistics and
reports come from it. `write_path` is the life of a commit, `committer` that of one whose caller has
no thread, `flush` and `compact` the background work, `closing` the clean end.
"""

from holdfast.engine._core import CLOSED, FORKED, CommitState, KeyspaceCore
from holdfast.engine.changes import Change, Feed, Operation
from holdfast.engine.crew import Crew
from holdfast.engine.database import Database
from holdfast.engine.keyspace import Keyspace
from holdfast.engine.latency import LatencyStats
from holdfast.engine.live_format import LiveFigures
from holdfast.engine.live_reader import Watcher, read_live
from holdfast.engine.opening import open_database
from holdfast.engine.slow import SlowCause, SlowReport
from holdfast.engine.snapshot import Snapshot, SnapshotKeyspace, TransactionInfo
from holdfast.engine.stats import KeyspaceStats, LevelStats, Rates, Stats, WaitStats
from holdfast.engine.write_path import Condition, Receiver, Submission, check_durability
from holdfast.recovery import Report
from holdfast.txn import Transaction, TransactionKeyspace

__all__ = [
    "CLOSED",
    "FORKED",
    "Change",
    "CommitState",
    "Condition",
    "Crew",
    "Database",
    "Feed",
    "Keyspace",
    "KeyspaceCore",
    "KeyspaceStats",
    "LatencyStats",
    "LevelStats",
    "LiveFigures",
    "Operation",
    "Rates",
    "Receiver",
    "Report",
    "SlowCause",
    "SlowReport",
    "Snapshot",
    "SnapshotKeyspace",
    "Stats",
    "Submission",
    "Transaction",
    "TransactionInfo",
    "TransactionKeyspace",
    "WaitStats",
    "Watcher",
    "check_durability",
    "open_database",
    "read_live",
]
