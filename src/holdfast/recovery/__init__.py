"""Floor 7: from a folder in whatever state a crash left it to a database that can be trusted.

`replay` reads without writing, `restart` makes new files out of what was read before anything is
acknowledged again, `check` verifies every byte, `repair` makes the best of what is damaged.
`apply_buffer` and `apply_payload` are the one way that commits and their replay take.
"""

from holdfast.recovery._apply import apply_buffer, apply_payload, apply_records
from holdfast.recovery.check import Report, check_folder, check_log, check_manifest, check_tables
from holdfast.recovery.locking import LOCK_NAME, lock_for_reading, lock_for_writing
from holdfast.recovery.needed import needed_log, needed_tables, stored_settings
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.repair import repair_database
from holdfast.recovery.repair_report import Loss, LossKind, Outcome, RepairReport
from holdfast.recovery.replay import Replayed, replay
from holdfast.recovery.restart import (
    DEFAULT_KEYSPACE,
    LIVE_NAME,
    UNFINISHED,
    WATCH_NAME,
    Recovery,
    check_free_for_new,
    has_database_files,
    recover_for_reading,
    recover_for_writing,
)
from holdfast.recovery.root import check_root, check_root_form, read_root, root_of
from holdfast.recovery.sealing import drop_old_keys, key_source, sealed_env, unlock
from holdfast.recovery.unfinished import (
    check_free,
    claimed_folder,
    mark_finished,
    mark_unfinished,
)

__all__ = [
    "DEFAULT_KEYSPACE",
    "LIVE_NAME",
    "LOCK_NAME",
    "UNFINISHED",
    "WATCH_NAME",
    "FileNumbers",
    "Loss",
    "LossKind",
    "Outcome",
    "Recovery",
    "RepairReport",
    "Replayed",
    "Report",
    "apply_buffer",
    "apply_payload",
    "apply_records",
    "check_folder",
    "check_free",
    "check_free_for_new",
    "check_log",
    "check_manifest",
    "check_root",
    "check_root_form",
    "check_tables",
    "claimed_folder",
    "drop_old_keys",
    "has_database_files",
    "key_source",
    "lock_for_reading",
    "lock_for_writing",
    "mark_finished",
    "mark_unfinished",
    "needed_log",
    "needed_tables",
    "read_root",
    "recover_for_reading",
    "recover_for_writing",
    "repair_database",
    "replay",
    "root_of",
    "sealed_env",
    "stored_settings",
    "unlock",
]
