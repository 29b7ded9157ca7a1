"""The files of the project, without what is built, cached or installed; works without git."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".git", "build", "dist", "__pycache__"}
BINARY = {".so", ".bin", ".wal", ".table", ".manifest", ".gz", ".png", ".zst"}


def is_skipped(name: str) -> bool:
    """Return whether a folder holds nothing that anybody wrote."""
    hidden = name.startswith(".") and name != ".ci"
    return hidden or name in SKIPPED or name.endswith(".egg-info")


def files(*suffixes: str, under: str = ".") -> Iterator[Path]:
    """Yield the files below `under` with one of the suffixes (none: all that are text), sorted."""
    for folder, folders, names in os.walk(ROOT / under):
        folders[:] = sorted(name for name in folders if not is_skipped(name))
        for name in sorted(names):
            path = Path(folder, name)
            if suffixes:
                if path.suffix in suffixes:
                    yield path
            elif (
                path.suffix not in BINARY
                and not name.startswith("KEYS.")
                and not (name.startswith(".") and name != ".gitignore")
            ):
                yield path


def shown(path: Path) -> str:
    """Return a path as messages name it."""
    return str(path.relative_to(ROOT))
