"""What a long run came to so far, kept in a file, so that it can be cut off and gone on with.

Thread safety: none; one process at a time has the file.
"""

from __future__ import annotations

import json
import os
from typing import Any

from holdfast.testing.bench_report import machine

Plain = dict[str, Any]


class Kept:
    """The file `path` of a run `of` this; without a path nothing is kept.

    The commit is that at the beginning, whatever becomes of the checkout meanwhile.
    """

    def __init__(self, path: str | None, **of: object) -> None:
        found = machine(os.getcwd()) if path else {}
        self._path = path
        self._of = {name: str(value) for name, value in of.items()} | {
            name: found[name] for name in ("Holdfast", "Python") if name in found
        }

    def load(self) -> Plain:
        """Return what `save` wrote, {} when there is nothing yet.

        Raises: ValueError when it is of another run, commit or Python: sums over both would be of
        no one state of the code.
        """
        if not self._path or not os.path.exists(self._path):
            return {}
        with open(self._path, encoding="ascii") as file:
            kept = json.load(file)
        if kept["of"] != self._of:
            raise ValueError(f"{self._path} is of another run: {kept['of']}, and not {self._of}")
        what: Plain = kept["what"]
        return what

    def save(self, what: Plain) -> None:
        """Keep `what` the run came to so far. A run that is cut off in it finds what was kept
        before.
        """
        if not self._path:
            return
        with open(self._path + ".new", "w", encoding="ascii") as file:
            json.dump({"of": self._of, "what": what}, file)
        os.replace(self._path + ".new", self._path)
