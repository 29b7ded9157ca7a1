"""Numbers on the command lines of the harnesses: what cannot be meant is wrong usage, status 2.

`int` and `float` take too much: `float` knows "nan", with which no comparison ends, and "inf".

Thread safety: pure functions.
"""

from __future__ import annotations

import argparse
from math import isfinite


def positive(text: str) -> float:
    """Return the number above 0 that a text stands for. Raises: ArgumentTypeError."""
    number = _float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"it is more than 0, not {text}")
    return number


def not_negative(text: str) -> float:
    """Return the number of at least 0 that a text stands for. Raises: ArgumentTypeError."""
    number = _float(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"it is 0 or more, not {text}")
    return number


def none_or_more(text: str) -> int:
    """Return the integer of at least 0 that a text stands for. Raises: ArgumentTypeError."""
    return _at_least(0, text)


def one_or_more(text: str) -> int:
    """Return the integer of at least 1 that a text stands for. Raises: ArgumentTypeError."""
    return _at_least(1, text)


def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return number


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"it is {least} or more, not {text}")
    return number
