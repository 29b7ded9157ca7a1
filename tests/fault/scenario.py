"""The canonical life of a database under faults: every kind of call that changes files, in order.

The database is created, written to in every durability, flushed, compacted, given and robbed of a
keyspace, closed, and opened again. A step that fails is not repeated; what can go on goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.engine import Database
from tests.fault.client import TINY, Client, State

VALUE_BYTES = 300


def value_of(number: int) -> bytes:
    return (b"value %d " % number) * (VALUE_BYTES // 10)


def put(
    number: int, key: bytes, durability: str | None, keyspace: str = "default"
) -> Callable[[Client], None]:
    def run(client: Client) -> None:
        def call(database: Database) -> None:
            database.keyspace(keyspace, create=False).put(
                key, value_of(number), durability=durability
            )

        def model(state: State) -> None:
            state[keyspace][key] = value_of(number)

        if keyspace in client.state:
            client.change(call, model, durable=durability in (None, "commit"))

    return run


def add(key: bytes, durability: str | None) -> Callable[[Client], None]:
    def model(state: State) -> None:
        state["default"][key] = b"%d" % (int(state["default"].get(key, b"0")) + 1)

    def run(client: Client) -> None:
        client.change(
            lambda database: database.add(key, durability=durability),
            model,
            durable=durability is None,
        )

    return run


def batch(number: int, keys: list[bytes]) -> Callable[[Client], None]:
    pairs = {key: value_of(number) for key in keys}

    def run(client: Client) -> None:
        client.change(
            lambda database: database.put_many(pairs), lambda state: state["default"].update(pairs)
        )

    return run


def ingest(number: int, keys: list[bytes]) -> Callable[[Client], None]:
    pairs = {key: value_of(number) for key in sorted(keys)}

    def run(client: Client) -> None:
        client.change(
            lambda database: database.ingest(pairs), lambda state: state["default"].update(pairs)
        )

    return run


def delete_range(start: bytes, stop: bytes) -> Callable[[Client], None]:
    def model(state: State) -> None:
        for key in [key for key in state["default"] if start <= key < stop]:
            del state["default"][key]

    def run(client: Client) -> None:
        client.change(lambda database: database.delete_range(start, stop), model)

    return run


def create_keyspace(name: str) -> Callable[[Client], None]:
    def run(client: Client) -> None:
        if name not in client.state:
            client.change(
                lambda database: database.keyspace(name), lambda state: state.update({name: {}})
            )

    return run


def drop_keyspace(name: str) -> Callable[[Client], None]:
    def run(client: Client) -> None:
        if name in client.state:
            client.change(
                lambda database: database.drop_keyspace(name), lambda state: state.pop(name)
            )

    return run


def flush(client: Client) -> None:
    client.maintain(lambda database: database.flush(), durable=True)


def compact(client: Client) -> None:
    client.maintain(lambda database: database.compact(), durable=True)


def sync(client: Client) -> None:
    client.maintain(lambda database: database.sync(), durable=True)


def settle(client: Client) -> None:
    """Let background work end, but for an interval timer that finds no room to sync."""
    assert client.database is not None
    engine = client.database._engine
    upkeep = engine.upkeep
    while upkeep._working:
        if list(upkeep._running) == [("interval", 0)] and engine.background_error is not None:
            return
        engine.env.sleep(0.001)


def first_life() -> list[Callable[[Client], None]]:
    steps: list[Callable[[Client], None]] = [
        put(number, b"key %02d" % number, "none" if number % 3 else None) for number in range(10)
    ]
    steps += [flush, create_keyspace("other"), add(b"total", None), add(b"total", "none")]
    steps += [put(number, b"key %02d" % (number % 7), None, "other") for number in range(20, 26)]
    steps += [batch(30, [b"key 03", b"key 04", b"more"]), put(31, b"late", "interval")]
    steps += [put(number, b"key %02d" % (number % 20), None) for number in range(40, 52)]
    steps += [put(53, b"key 11", "none"), ingest(54, [b"key %02d" % key for key in range(9, 30)])]
    steps += [delete_range(b"key 02", b"key 06"), sync, compact, settle]
    steps += [put(60, b"key 60", None), drop_keyspace("other"), put(61, b"key 61", "none")]
    return steps


def second_life() -> list[Callable[[Client], None]]:
    return [
        add(b"total", None),
        put(70, b"key 70", None),
        put(71, b"key 71", "none"),
        flush,
        put(72, b"key 72", None),
    ]


def run_life(
    client: Client, steps: list[Callable[[Client], None]], at_end: Callable[[], None] | None = None
) -> None:
    """Run the steps of an open database and close it; `at_end` is called before the close."""
    for step in steps:
        step(client)
    if at_end is not None:
        at_end()
    client.close()


def run_lives(client: Client, at_end: Callable[[], None] | None = None) -> None:
    """Run both lives as far as they go."""
    if client.open(TINY, create=True):
        run_life(client, first_life(), at_end)
        if client.open():
            run_life(client, second_life(), at_end)


def run_after_crash(client: Client, at_end: Callable[[], None] | None = None) -> None:
    """Open what a crash left, at the second attempt if need be, and run the second life."""
    if client.open() or client.open():
        run_life(client, second_life(), at_end)
