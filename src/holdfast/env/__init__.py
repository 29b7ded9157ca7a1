"""Floor 1: the machine behind a protocol.

Nothing outside this room touches files, clock, randomness or threads. The simulated machine and the
fault injector are part of the package, and are loaded when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from holdfast.env._memory import release_memory
from holdfast.env._mutex import OwnedMutex
from holdfast.env.posix import PosixEnv, may_be_interrupted, this_thread
from holdfast.env.protocol import (
    Buffer,
    Condition,
    Env,
    File,
    FileLock,
    Gate,
    Mutex,
    ReentryError,
    SyncError,
    Task,
    ThreadLife,
    is_disk_full,
    is_shortage,
)
from holdfast.env.read_around import ReadAroundEnv
from holdfast.env.stream import open_stream, read_stream, stream_size

if TYPE_CHECKING:
    from holdfast.env.fault import (
        Fault,
        FaultEnv,
        FaultRule,
        lose_writes,
        revert_writes,
        take_effect,
    )
    from holdfast.env.fault_sync import FAILED_SYNCS
    from holdfast.env.sim import Operation, SimEnv
    from holdfast.env.sim_choices import CRASH_CLASSES
    from holdfast.env.sim_crash import CrashPoint, CrashState, crash_state, crash_states
    from holdfast.env.sim_profile import PROFILES, Profile
    from holdfast.env.sim_schedule import SimCrash, SimDeadlock

_LAZY = {
    "CRASH_CLASSES": "sim_choices",
    "FAILED_SYNCS": "fault_sync",
    "PROFILES": "sim_profile",
    "CrashPoint": "sim_crash",
    "CrashState": "sim_crash",
    "Fault": "fault",
    "FaultEnv": "fault",
    "FaultRule": "fault",
    "Operation": "sim",
    "Profile": "sim_profile",
    "SimCrash": "sim_schedule",
    "SimDeadlock": "sim_schedule",
    "SimEnv": "sim",
    "crash_state": "sim_crash",
    "crash_states": "sim_crash",
    "lose_writes": "fault",
    "revert_writes": "fault",
    "take_effect": "fault",
}

__all__ = [
    "CRASH_CLASSES",
    "FAILED_SYNCS",
    "PROFILES",
    "Buffer",
    "Condition",
    "CrashPoint",
    "CrashState",
    "Env",
    "Fault",
    "FaultEnv",
    "FaultRule",
    "File",
    "FileLock",
    "Gate",
    "Mutex",
    "Operation",
    "OwnedMutex",
    "PosixEnv",
    "Profile",
    "ReadAroundEnv",
    "ReentryError",
    "SimCrash",
    "SimDeadlock",
    "SimEnv",
    "SyncError",
    "Task",
    "ThreadLife",
    "crash_state",
    "crash_states",
    "is_disk_full",
    "is_shortage",
    "lose_writes",
    "may_be_interrupted",
    "open_stream",
    "read_stream",
    "release_memory",
    "revert_writes",
    "stream_size",
    "take_effect",
    "this_thread",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
