"""Turns the bounds of a scan, as users write them, into one half-open key range."""

from __future__ import annotations

from holdfast.base.keys import check_key, prefix_upper


def key_range(start: object, stop: object, prefix: object) -> tuple[bytes | None, bytes | None]:
    """Return (lower, upper) of the keys in [start, stop) that begin with `prefix`; None is
    unbounded.

    Raises: TypeError, LimitError as for keys.
    """
    lower = None if start is None else check_key(start)
    upper = None if stop is None else check_key(stop)
    if prefix is not None:
        plain = check_key(prefix)
        lower = plain if lower is None else max(lower, plain)
        above = prefix_upper(plain)
        if above is not None:
            upper = above if upper is None else min(upper, above)
    return lower, upper
