"""The root digest of an open database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.recovery import read_root, root_of

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


def root_digest(engine: Engine) -> bytes:
    """Return the root of what was committed until now, which is durable then; commits wait."""
    version_set, log = engine.version_set, engine.log
    if version_set is None or log is None:
        return read_root(engine.env, engine.folder)
    found: list[bytes] = []

    def take() -> None:
        engine.write_path.sync_held()
        with engine.version_mutex:
            found.append(
                root_of(version_set.database_id, version_set.version, log.written_lsn, log.chain)
            )

    engine.write_path.exclusive(take)
    return found[0]
