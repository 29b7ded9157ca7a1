"""Files in memory and keys that are written down, for the examples of sealed files."""

import threading

from holdfast.crypto import KeyRing, Secret, Suite
from holdfast.crypto.keyfile import KeyFile

RING_ID = bytes(range(0x40, 0x50))
DATA_KEY = bytes(range(0x80, 0xA0))
SEAL_ID = bytes(range(0x60, 0x70))


class MemoryFile:
    """A file of bytes. Implements `File`."""

    name = "example"

    def __init__(self, data=b""):
        self.data = bytearray(data)

    def read_at(self, offset, count):
        return bytes(self.data[offset : offset + count])

    def write_at(self, offset, data, *, site):
        end = offset + len(data)
        self.data.extend(bytes(max(end - len(self.data), 0)))
        self.data[offset:end] = bytes(data)

    def allocate(self, size, *, written, site):
        self.data.extend(bytes(max(size - len(self.data), 0)))

    def truncate(self, size, *, site):
        del self.data[size:]

    def sync(self, *, site):
        pass

    def write_and_sync_at(self, offset, data, *, site, sync_site):
        self.write_at(offset, data, site=site)

    def size(self):
        return len(self.data)

    def close(self):
        pass

    def fileno(self):
        return -1


class Written:
    """An env whose randomness is the seal id first, and then counts: 0101.., 0202.., and so on."""

    def __init__(self):
        self.drawn = 0

    def mutex(self):
        return threading.Lock()

    def random_bytes(self, count):
        self.drawn += 1
        return SEAL_ID if count == 16 else bytes([self.drawn - 1]) * count


def ring():
    """Keys of one epoch, 3, for files that are written with `Written`."""
    keys = KeyFile(
        ring_id=RING_ID,
        iteration=2,
        suite=Suite.AES_256_GCM,
        epoch=3,
        keys={3: Secret(DATA_KEY)},
    )
    return KeyRing(Written(), "folder", keys)
