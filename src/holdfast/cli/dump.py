"""`holdfast dump FILE`: shows one log segment, table or manifest, wherever the file lies.

Damaged places are marked and what lies behind them is shown where it can still be found; exit
status 1 when there are any. Nothing but the file itself is read, so what only the rest of a
database can tell, such as whether a torn tail was durable, is not judged: `verify` does.
"""

from __future__ import annotations

import argparse
import os

from holdfast.base import FormatError
from holdfast.cli.dump_log import dump_log
from holdfast.cli.dump_manifest import dump_manifest
from holdfast.cli.dump_output import Output
from holdfast.cli.dump_table import dump_table
from holdfast.cli.failure import FAILED, CommandError, wrong_usage
from holdfast.cli.keys import add_key, key_of
from holdfast.cli.opening import open_file, resolved
from holdfast.cli.text import Form
from holdfast.crypto import SEAL_MAGIC, KeySource
from holdfast.env import File, PosixEnv
from holdfast.manifest import MANIFEST_MAGIC
from holdfast.recovery import unlock
from holdfast.sstable import FOOTER_BYTES, TABLE_MAGIC, TABLE_TAIL_BYTES
from holdfast.wal import SEGMENT_MAGIC

_KINDS = {".wal": dump_log, ".table": dump_table, ".manifest": dump_manifest}


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    parser.add_argument("file", metavar="FILE", help="a .wal, .table or .manifest file")
    parser.add_argument("--keys-only", action="store_true", help="leave the values out")
    parser.add_argument(
        "--limit",
        metavar="COUNT",
        type=int,
        help="print at most this many operations, entries or parts of edits; all are checked",
    )
    parser.add_argument("--hex", action="store_true", help="keys and values in hexadecimal")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    add_key(parser, what="the key, in whose database the file lies,")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.limit is not None and arguments.limit < 0:
        raise wrong_usage("a limit is 0 or more")
    output = Output(
        as_json=arguments.json,
        form=Form.HEX if arguments.hex else Form.TEXT,
        keys_only=arguments.keys_only,
        limit=arguments.limit,
    )
    key = key_of(arguments)
    file = open_file(arguments.file) if key is None else _open_sealed(arguments.file, key)
    try:
        kind = _kind(file)
        by_name = next((suffix for suffix in _KINDS if arguments.file.endswith(suffix)), None)
        if kind is None and _is_sealed(file):
            raise CommandError(f"{arguments.file} is of an encrypted database; give its key")
        if kind is None and by_name is None:
            raise CommandError(f"{arguments.file} is no log segment, table or manifest of Holdfast")
        if kind is None:
            output.damage(0, f"the magic of a {by_name} file is damaged")
        try:
            _KINDS[kind or by_name or ""](file, output)
        except FormatError as error:
            if kind is not None:
                # Its magic is ours, so a newer version wrote it.
                raise
            output.damage(0, str(error))
    finally:
        file.close()
    output.end()
    return FAILED if output.damaged_places else 0


def _open_sealed(path: str, key: KeySource) -> File:
    """Open a file of an encrypted database. Raises: WrongKeyError, CorruptionError; OSError."""
    path = resolved(path)
    return unlock(PosixEnv(), os.path.dirname(path), key).open(path)


def _is_sealed(file: File) -> bool:
    at = max(file.size() - TABLE_TAIL_BYTES, 0)
    return SEAL_MAGIC in (file.read_at(0, len(SEAL_MAGIC)), file.read_at(at, len(SEAL_MAGIC)))


def _kind(file: File) -> str | None:
    """Return the suffix that belongs to the magic of a file, None when it has none of ours."""
    front = file.read_at(0, 8)
    if front == SEGMENT_MAGIC:
        return ".wal"
    if front == MANIFEST_MAGIC:
        return ".manifest"
    at = file.size() - FOOTER_BYTES
    return ".table" if at >= 0 and file.read_at(at, 8) == TABLE_MAGIC else None
