"""A database as a list of plain dictionaries: what every history of calls must give.

`Model` has the calls of `holdfast.Database`, and no files, no levels and no threads. A test makes
the same calls on both and compares; whatever the settings, flushes and compactions are, the answers
must be equal.

The model keeps the state after every commit. `durable` is the number of the last one that was
acknowledged as durable. A crash may leave any state from there on, so `recover` takes what was
found and goes on from it.

Thread safety: none; a model belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from holdfast.base import DatabaseClosedError, LimitError, check_key, check_value
from holdfast.merge import Merges

DEFAULT = "default"
_MERGES = Merges()

State = Mapping[str, Mapping[bytes, bytes]]
"""The content of all keyspaces by name. Never changed: a commit makes a new one."""


class SortedMapping(Mapping[bytes, bytes]):
    """A mapping with the reads of a keyspace. Subclasses say where the content is."""

    def content(self) -> Mapping[bytes, bytes]:
        """Return the pairs that a read would see now."""
        raise NotImplementedError

    def __getitem__(self, key: object) -> bytes:
        return self.content()[check_key(key)]

    def __contains__(self, key: object) -> bool:
        return check_key(key) in self.content()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.content())

    def get(self, key: object, default: object = None) -> object:  # type: ignore[override]
        """Return the value of `key`, or `default`."""
        return self.content().get(check_key(key), default)

    def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        content = self.content()
        return [content.get(check_key(key)) for key in keys]

    def items(  # type: ignore[override]  # a list of rows in place of a view
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Return the rows of a scan as they are now."""
        rows = sorted(
            (key, value)
            for key, value in self.content().items()
            if (start is None or key >= start)
            and (stop is None or key < stop)
            and (prefix is None or key.startswith(prefix))
        )
        if reverse:
            rows.reverse()
        return rows if limit is None else rows[:limit]

    def keys(  # type: ignore[override]  # as items
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[bytes]:
        """Return the keys of a scan as they are now."""
        rows = self.items(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return [key for key, _ in rows]

    def values(  # type: ignore[override]  # as items
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        prefix: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[bytes]:
        """Return the values of a scan as they are now."""
        rows = self.items(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return [value for _, value in rows]


class ModelKeyspace(SortedMapping):
    """One keyspace of a model. Every call that writes is one commit."""

    def __init__(self, model: Model, name: str) -> None:
        self._model = model
        self._name = name

    @property
    def name(self) -> str:
        """The name it was created with."""
        return self._name

    def content(self) -> Mapping[bytes, bytes]:
        """Return the pairs of the newest state. Raises: DatabaseClosedError when it was dropped."""
        found = self._model.state.get(self._name)
        if found is None:
            raise DatabaseClosedError(f"keyspace {self._name!r} was dropped")
        return found

    def put(self, key: object, value: object, *, durability: str | None = None) -> None:
        """Set `key` to `value`."""
        self.put_many([(check_key(key), check_value(value))], durability=durability)

    def __setitem__(self, key: object, value: object) -> None:
        self.put(key, value)

    def put_many(
        self,
        pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]],
        *,
        durability: str | None = None,
    ) -> None:
        """Write all pairs in one commit; of equal keys the last wins."""
        added = {check_key(key): check_value(value) for key, value in dict(pairs).items()}
        if added:
            self._model.commit(self._name, {**self.content(), **added}, durability)

    def merge(
        self, key: object, function: str, operand: object, *, durability: str | None = None
    ) -> None:
        """Apply a built-in merge function to the value of `key`."""
        plain = check_key(key)
        entry = _MERGES.value_of(function, operand)
        merged = _MERGES.fold(plain, self.content().get(plain), [entry])
        self._model.commit(self._name, {**self.content(), plain: merged}, durability)

    def ingest(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> int:
        """Write pairs with ascending keys in one durable commit; return their number."""
        added = list(dict(pairs).items())
        self.put_many(added)
        return len(added)

    def delete(self, key: object, *, durability: str | None = None) -> None:
        """Remove `key`; nothing happens when it is absent, but it is a commit all the same."""
        plain = check_key(key)
        rest = {each: value for each, value in self.content().items() if each != plain}
        self._model.commit(self._name, rest, durability)

    def __delitem__(self, key: object) -> None:
        if key not in self:
            raise KeyError(key)
        self.delete(key)

    def delete_range(
        self, start: bytes | None, stop: bytes | None, *, durability: str | None = None
    ) -> None:
        """Remove every key with `start` <= key < `stop`; None is unbounded.

        Without such a key it is no commit, so earlier ones do not become durable.
        """
        gone = set(self.keys(start, stop))
        if gone:
            rest = {key: value for key, value in self.content().items() if key not in gone}
            self._model.commit(self._name, rest, durability)

    def clear(self) -> None:
        """Remove every key."""
        self.delete_range(None, None)


class ModelSnapshotKeyspace(SortedMapping):
    """A keyspace of one state."""

    def __init__(self, pairs: Mapping[bytes, bytes]) -> None:
        self._pairs = pairs

    def content(self) -> Mapping[bytes, bytes]:
        """Return the pairs of that state."""
        return self._pairs


class ModelSnapshot(ModelSnapshotKeyspace):
    """A state that stays."""

    def __init__(self, state: State) -> None:
        super().__init__(state[DEFAULT])
        self.state = state

    def keyspace(self, name: str) -> ModelSnapshotKeyspace:
        """Return a keyspace as it was. Raises: KeyError when there was none."""
        return ModelSnapshotKeyspace(self.state[name])


class Model(ModelKeyspace):
    """A database and its history; the mapping itself is the default keyspace.

    >>> model = Model()
    >>> model[b"a"] = b"1"
    >>> model.put(b"b", b"2", durability="none")
    >>> model.items(reverse=True)
    [(b'b', b'2'), (b'a', b'1')]
    >>> [sorted(state["default"]) for state in model.candidates()]
    [[b'a'], [b'a', b'b']]
    """

    def __init__(self) -> None:
        super().__init__(self, DEFAULT)
        self._states: list[State] = [{DEFAULT: {}}]
        self._interval = 0
        self.durable = 0
        """The number of the last commit that a crash cannot take back."""

    @property
    def state(self) -> State:
        """The content of all keyspaces, by name."""
        return self._states[-1]

    @property
    def newest(self) -> int:
        """The number of the last commit; 0 when there was none."""
        return len(self._states) - 1

    # -- keyspaces

    def keyspace(self, name: str, *, create: bool = True) -> ModelKeyspace:
        """Return a keyspace; a new one is created durably. Raises: KeyError unless `create`."""
        if name not in self.state:
            if not create:
                raise KeyError(name)
            self._states.append({**self.state, name: {}})
            self.sync()
        return ModelKeyspace(self, name)

    def keyspaces(self) -> list[str]:
        """Return the names of all keyspaces, sorted."""
        return sorted(self.state)

    def drop_keyspace(self, name: str) -> None:
        """Remove a keyspace, durably. Raises: KeyError; LimitError for the default one."""
        if name == DEFAULT:
            raise LimitError("the default keyspace cannot be dropped; use clear()")
        if name not in self.state:
            raise KeyError(name)
        self._states.append({each: pairs for each, pairs in self.state.items() if each != name})
        self.sync()

    def snapshot(self) -> ModelSnapshot:
        """Return the newest state, to stay as it is."""
        return ModelSnapshot(self.state)

    # -- commits and crashes

    def commit(self, name: str, pairs: Mapping[bytes, bytes], durability: str | None) -> None:
        """Replace the content of one keyspace in a new commit."""
        self._states.append({**self.state, name: pairs})
        if durability is None or durability == "commit":
            self.sync()
        elif durability == "interval":
            self._interval = self.newest

    def sync(self) -> None:
        """Every commit so far is durable."""
        self.durable = self.newest

    def interval_passed(self) -> None:
        """Every commit up to the last one of durability "interval" is durable."""
        self.durable = max(self.durable, self._interval)

    def candidates(self) -> list[State]:
        """Return what a crash may leave now: a prefix of the commits with every durable one."""
        return self._states[self.durable :]

    def recover(self, found: State) -> bool:
        """Go on from `found`, which a crash left, as the newest state, which is durable.

        Return False, with nothing changed, when a crash cannot leave it.
        """
        for number in range(self.newest, self.durable - 1, -1):
            if self._states[number] == found:
                del self._states[number + 1 :]
                self._interval = 0
                self.sync()
                return True
        return False
