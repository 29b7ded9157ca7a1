"""Bugs that other suites found, each in the smallest form."""

from holdfast.engine import open_database
from holdfast.env import SimEnv


def test_a_deletion_without_a_sync_is_logged_and_applied() -> None:
    env = SimEnv()
    database = open_database("/db", env=env)
    database[b"key"] = b"value"
    database.delete(b"key", durability="none")
    assert None is database.get(b"key")
    database.close()
    with open_database("/db", env=env) as database:
        assert None is database.get(b"key")
