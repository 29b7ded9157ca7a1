"""What a cursor stands at."""

Entry = tuple[bytes, int, int, bytes]
"""(key, sequence number, kind, value)."""
