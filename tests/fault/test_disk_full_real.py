"""A real file system of a few MiB gets full: a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" "$3" "$1"'
COMMAND = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def in_small_file_system(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, MOUNT, "sh", str(folder), sys.executable, program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_real_disk_gets_full_and_has_room_again(tmp_path: Path, root: Path) -> None:
    try:
        allowed = in_small_file_system(tmp_path, "--version").returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this machine lets nobody mount a small file system without privileges")
    done = in_small_file_system(tmp_path, str(root / "tests" / "fault" / "full_tmpfs.py"))
    assert done.returncode == 0, done.stderr
    assert "an open found no room" in done.stdout
