"""Holdfast with a key: AES-256-GCM, or ChaCha20-Poly1305 where a trial finds AES slower.

- All else is as for Holdfast without one.
- Durable: `db.put(key, value)`. Not synced: `durability="none"`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import holdfast.aio
from holdfast.testing.versus_holdfast import HoldfastStore, settings_for, version
from holdfast.testing.versus_store import Setup

KEY = bytes(range(32))

__all__ = ["STORE", "version"]


class EncryptedStore(HoldfastStore):
    """An encrypted database of Holdfast."""

    def __init__(self, setup: Setup) -> None:
        self._database = holdfast.open(setup.folder, settings=settings_for(setup), key=KEY)
        self._durability = setup.sync if setup.has_writes else "none"

    @classmethod
    def has_tasks(cls) -> bool:
        return True

    @classmethod
    @contextlib.asynccontextmanager
    async def tasks(cls, setup: Setup) -> AsyncIterator[Callable[[bytes, bytes], Awaitable[None]]]:
        database = await holdfast.aio.open(setup.folder, settings=settings_for(setup), key=KEY)
        try:
            yield database.put
        finally:
            await database.close()


STORE = EncryptedStore
