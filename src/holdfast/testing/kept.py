"""What a long run came to so far, kept in a file, so that it can be cut off and gone on with.

Thread safety: none; one process at a time has the file.
"""

from __future__ import annotations

import json
import os
from typing import Any

from holdfast.testing.bench_report import machine

Plain = dict[str, Any]


def load(path: str | None, **of: object) -> Plain:
    """Return what `save` wrote, {} when there is nothing yet or no path is given.

    Raises: ValueError when it is of another run than `of`, commit or Python: sums over both would
    be of no one state of the code.
    """
    if not path or not os.path.exists(path):
        return {}
    with open(path, encoding="ascii") as file:
        kept = json.load(file)
    wanted = _of(of)
    if kept["of"] != wanted:
        raise ValueError(f"{path} is of another run: {kept['of']}, and not {wanted}")
    what: Plain = kept["what"]
    return what


def save(path: str | None, what: Plain, **of: object) -> None:
    """Keep `what` a run `of` this came to so far; without a path nothing is done. A run that is cut
    off in it finds what was kept before.
    """
    if not path:
        return
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump({"of": _of(of), "what": what}, file)
    os.replace(path + ".new", path)


def _of(of: dict[str, object]) -> dict[str, str]:
    found = machine(os.getcwd())
    return {name: str(value) for name, value in of.items()} | {
        name: found[name] for name in ("Holdfast", "Python")
    }
