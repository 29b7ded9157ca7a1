"""Floor 10: the `holdfast` command, for people at a shell and for scripts.

`main` runs one verb. Every verb is a module of this room and is imported only when it is called.
"""

from holdfast.cli.command import main

__all__ = ["main"]
