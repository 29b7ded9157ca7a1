"""The caller's key in its three forms."""

import copy
import pickle

import pytest

from holdfast.base import WrongKeyError
from holdfast.crypto import KeySource, Protection, ScryptCost, Secret, SourceKind

SALT = bytes(range(32))
CHEAP = ScryptCost(10, 8, 1)
RAW = bytes(range(100, 132))


class Service:
    """A key management service in miniature: it wraps by a table."""

    def __init__(self):
        self.known = {}
        self.asked = []

    def __call__(self, wrapped):
        self.asked.append(wrapped)
        if wrapped is None:
            name = b"key %d" % len(self.known)
            self.known[name] = bytes([len(self.known)] * 32)
            return self.known[name], name
        return self.known[wrapped]


@pytest.mark.parametrize("key", [RAW, bytearray(RAW), memoryview(RAW), "a passphrase", Service()])
def test_a_key_opens_what_it_protects(key):
    source = KeySource(key)
    protection, made = source.protect(SALT, CHEAP)
    assert len(made.reveal()) == 32
    assert made.reveal() not in (RAW, bytes(32))
    assert KeySource(key).unlock(protection).reveal() == made.reveal()


def test_each_salt_gives_another_key():
    one = KeySource(RAW).protect(SALT)[1].reveal()
    assert one != KeySource(RAW).protect(bytes(32))[1].reveal()
    assert one != KeySource(bytes(32)).protect(SALT)[1].reveal()


def test_a_callable_is_asked_for_a_new_key_once_and_then_with_what_it_gave():
    service = Service()
    protection, _ = KeySource(service).protect(SALT)
    assert (protection.kind, protection.wrapped) == (SourceKind.CALLABLE, b"key 0")
    KeySource(service).unlock(protection)
    assert service.asked == [None, b"key 0"]


def test_a_passphrase_may_be_composed_in_either_way():
    protection, made = KeySource("M\u00fcller").protect(SALT, CHEAP)
    assert KeySource("Mu\u0308ller").unlock(protection).reveal() == made.reveal()


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33, "", "x" * 4097])
def test_a_key_of_a_wrong_size_is_refused(key):
    with pytest.raises(ValueError, match=r"32 bytes|passphrase has"):
        KeySource(key)


@pytest.mark.parametrize("key", [5, 1.0, ["x"], object()])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(TypeError):
        KeySource(key)


@pytest.mark.parametrize(
    "answer",
    [
        b"x" * 32,
        (b"x" * 32,),
        ("x" * 32, b"w"),
        (b"x" * 32, "w"),
        (b"x" * 31, b"w"),
        (b"x" * 32, b""),
        (b"x" * 32, b"w" * 4097),
        (b"x" * 32, b"no: " + b"x" * 32),
    ],
)
def test_a_callable_that_gives_no_key_and_its_wrapping_is_refused(answer):
    with pytest.raises((TypeError, ValueError)):
        KeySource(lambda wrapped: answer).protect(SALT)


@pytest.mark.parametrize("answer", [None, "x" * 32, b"x" * 31, (b"x" * 32, b"w")])
def test_a_callable_that_gives_no_key_for_a_wrapped_one_is_refused(answer):
    protection = Protection(kind=SourceKind.CALLABLE, salt=SALT, wrapped=b"w")
    with pytest.raises((TypeError, ValueError)):
        KeySource(lambda wrapped: answer).unlock(protection)


def test_what_the_callable_raises_comes_out():
    def refuse(wrapped):
        raise PermissionError("not today")

    with pytest.raises(PermissionError, match="not today"):
        KeySource(refuse).protect(SALT)


@pytest.mark.parametrize("key", [RAW, "a passphrase", Service()])
@pytest.mark.parametrize("kind", SourceKind)
def test_another_kind_of_key_is_a_wrong_key(key, kind):
    source = KeySource(key)
    if kind is source.kind:
        return
    protection = Protection(kind=kind, salt=SALT, cost=CHEAP, wrapped=b"w")
    with pytest.raises(WrongKeyError, match="protected by"):
        source.unlock(protection)


@pytest.mark.parametrize(
    ("cost", "problem"),
    [
        (ScryptCost(15, 8, 3), None),
        (ScryptCost(18, 8, 1), None),
        (ScryptCost(9, 8, 1), "range"),
        (ScryptCost(21, 1, 1), "range"),
        (ScryptCost(10, 0, 1), "range"),
        (ScryptCost(10, 33, 1), "range"),
        (ScryptCost(10, 8, 17), "range"),
        (ScryptCost(10, 8, 0), "range"),
        (ScryptCost(20, 8, 1), "256 MiB"),
        (ScryptCost(18, 8, 9), "long"),
    ],
)
def test_costs_that_take_all_memory_or_time_are_refused(cost, problem):
    found = cost.problem()
    assert (found is None) if problem is None else (problem in found)


@pytest.mark.parametrize("holder", [Secret(RAW), KeySource(RAW), KeySource("a passphrase")])
def test_a_key_shows_itself_to_nobody(holder):
    for text in (repr(holder), str(holder), f"{holder}", f"{[holder]}"):
        assert "a passphrase>" in text or "passphrase" not in text
        assert RAW.hex() not in text
        assert repr(RAW)[2:-1] not in text
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            attempt(holder)
