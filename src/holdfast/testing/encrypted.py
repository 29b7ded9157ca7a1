"""Harnesses on encrypted databases: what `--encrypted` switches.

An environment variable says whether they are, so that processes which a harness starts are of the
same kind. The key is no secret.
"""

from __future__ import annotations

import os

from holdfast.crypto import KeySource
from holdfast.env import Env
from holdfast.recovery import unlock

VARIABLE = "HOLDFAST_TESTING_KEY"
KEY = bytes(range(32))


def use(is_on: bool) -> None:
    """Make databases of harnesses encrypted, or plain, from now on and in child processes."""
    if is_on:
        os.environ[VARIABLE] = KEY.hex()
    else:
        os.environ.pop(VARIABLE, None)


def is_used() -> bool:
    """Return whether databases of harnesses are encrypted."""
    return VARIABLE in os.environ


def key() -> bytes | None:
    """Return the key to open a harness's database with."""
    return KEY if is_used() else None


def source() -> KeySource | None:
    """Return the key in the form that checks take."""
    return KeySource(KEY) if is_used() else None


def arguments() -> list[str]:
    """Return what a command line takes to open a harness's database."""
    return ["--key-env", VARIABLE] if is_used() else []


def plain_face(env: Env, folder: str) -> Env:
    """Return an env that shows the files of a harness's database in their plain formats."""
    return unlock(env, folder, source())
