"""Floor 1: bytes in, bytes out. Checksums, varints, compression, the page envelope and ordered tuples."""

from holdfast.codec._checksum import checksum

__all__ = ["checksum"]
