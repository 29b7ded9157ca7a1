"""`holdfast stats DB`: sizes of keyspaces and levels, and the amplifications they amount to; with
`--watch` again and again, also of a database that another process has open.
"""

from __future__ import annotations

import argparse
import json
from math import isfinite

from holdfast.cli.failure import wrong_usage
from holdfast.cli.keys import key_of
from holdfast.cli.opening import add_database, open_database
from holdfast.cli.stats_table import rest_lines, rest_object
from holdfast.cli.watch import watch

INTERVAL_SECONDS = 1.0
INTERVAL_SECONDS_MIN = 0.1
INTERVAL_SECONDS_MAX = 86_400.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, on one line")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the figures again and again, also while another process has the database open; "
        "Ctrl-C ends it",
    )
    parser.add_argument(
        "--interval",
        type=float,
        metavar="SECONDS",
        help="with --watch: the time between two looks (default: 1)",
    )
    parser.add_argument("--count", type=int, metavar="N", help="with --watch: end after N looks")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    interval, count = arguments.interval, arguments.count
    if not arguments.watch and (interval is not None or count is not None):
        raise wrong_usage("--interval and --count need --watch")
    if interval is None:
        interval = INTERVAL_SECONDS
    if not isfinite(interval) or not INTERVAL_SECONDS_MIN <= interval <= INTERVAL_SECONDS_MAX:
        raise wrong_usage(
            f"--interval lies between {INTERVAL_SECONDS_MIN} and {INTERVAL_SECONDS_MAX:.0f}"
        )
    if count is not None and count < 1:
        raise wrong_usage("--count is at least 1")
    if arguments.watch:
        return watch(
            arguments.database,
            interval=interval,
            count=count,
            as_json=arguments.json,
            key=key_of(arguments),
        )
    with open_database(arguments, read_only=True) as database:
        stats = database.stats()
    print(json.dumps(rest_object(stats)) if arguments.json else "\n".join(rest_lines(stats)))
    return 0
