"""Runs one verb: finds its module, reads its arguments, and turns errors into one line.

Exit status: 0 good, 1 damage or failure found, 2 wrong usage, 130 after Ctrl-C. An error is one
line `holdfast: message` on standard error, never a traceback. A reader that closes the pipe early
is no error, and hides none that was found. A standard stream that is closed is an empty one.

Each verb is a module of this room with `configure(parser)` and `run(arguments) -> status`; what it
opens it closes on the way out, whatever ended it.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module

import holdfast
from holdfast.cli.failure import FAILED, INTERRUPTED, CommandError, describe, is_missing_extra
from holdfast.env import Buffer

VERBS = {
    "put": ("put", "write one key"),
    "get": ("get", "print the value of one key"),
    "delete": ("delete", "remove one key"),
    "scan": ("scan", "print keys and values in order"),
    "changes": ("changes", "print committed changes in order"),
    "import": ("csv_import", "load CSV files, one keyspace each"),
    "export": ("csv_export", "write a keyspace that was imported as CSV again"),
    "stats": ("stats", "sizes of keyspaces and levels, and amplifications"),
    "verify": ("verify", "read and check every byte of every file"),
    "repair": ("repair", "make a database that opens out of a damaged one"),
    "rekey": ("rekey", "change the key of an encrypted database"),
    "compact": ("compact", "bring the space of deleted and overwritten data back"),
    "backup": ("backup", "copy a database, whole and verifiable, to another folder"),
    "torture": ("torture", "try to lose data, by crashes, kills, damage and I/O errors"),
    "bench": ("bench", "measure workloads, side by side with the peers that are installed"),
    "dump": ("dump", "show one log segment, table or manifest"),
}
"""The module and the purpose of each verb."""


class _Nothing(io.RawIOBase):
    """Holds nothing, and takes everything, as /dev/null does."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return 0

    def write(self, data: Buffer) -> int:  # type: ignore[override]  # of typeshed's own Buffer
        return memoryview(data).nbytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line in `arguments`, by default the process's; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    status = 0
    _mend_streams()
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The interpreter flushes standard output once more when it ends, and would complain.
        sys.stdout = None
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except CommandError as error:
        _say(str(error))
        return error.status
    except SystemExit as error:
        # argparse has said what is wrong, or has printed the help that was asked for.
        return error.code if isinstance(error.code, int) else FAILED
    except (holdfast.Error, OSError) as error:
        _say(describe(error))
        return FAILED
    except ModuleNotFoundError as error:
        if is_missing_extra(error):
            _say(str(error))
            return FAILED
        return _say_fault(error)
    except Exception as error:  # noqa: BLE001  a user gets a sentence, whatever went wrong
        return _say_fault(error)


def _run(given: list[str]) -> int:
    if given and given[0] in VERBS:
        name, purpose = VERBS[given[0]]
        verb = import_module(f"holdfast.cli.{name}")
        parser = argparse.ArgumentParser(prog=f"holdfast {given[0]}", description=f"{purpose}.")
        verb.configure(parser)
        status: int = verb.run(parser.parse_args(given[1:]))
        return status
    lines = [f"  {verb:8} {purpose}" for verb, (_, purpose) in VERBS.items()]
    parser = argparse.ArgumentParser(
        prog="holdfast",
        usage="holdfast VERB ...",
        description="An embedded, transactional storage engine.",
        epilog="\n".join(["verbs:", *lines, "", "holdfast VERB --help says more about one."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help="what to do; see below")
    parser.add_argument("--version", action="version", version=f"holdfast {holdfast.__version__}")
    parser.parse_args(given[:1])
    raise CommandError("a verb is missing; holdfast --help lists them")


def _mend_streams() -> None:
    """Put empty streams in the place of closed ones, and let standard output spell what its
    encoding lacks, such as names of files that are no text.
    """
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Nothing()))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Nothing()))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _say_fault(error: Exception) -> int:
    """Say that there is an error which nothing expects; return the exit status."""
    _say(f"a fault in Holdfast itself: {type(error).__name__}: {error}")
    return FAILED


def _say(message: str) -> None:
    """Print one line on standard error, where there is one."""
    line = " ".join(message.split("\n"))
    try:
        print(f"holdfast: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # Nobody is left to tell.
        return
