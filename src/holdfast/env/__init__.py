"""Floor 1: the machine behind a protocol.

Nothing outside this room touches files, clock, randomness or threads.
"""

from holdfast.env.posix import PosixEnv
from holdfast.env.protocol import Condition, Env, File, FileLock, Mutex, Task, is_disk_full

__all__ = [
    "Condition",
    "Env",
    "File",
    "FileLock",
    "Mutex",
    "PosixEnv",
    "Task",
    "is_disk_full",
]
