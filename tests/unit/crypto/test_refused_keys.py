"""No traceback shows a key, nor what was refused as one and may be a key that was mistyped."""

import asyncio
import traceback

import pytest

import holdfast
import holdfast.aio
from holdfast.crypto import (
    SCRYPT_DEFAULT,
    KeyFile,
    KeySource,
    Protection,
    Secret,
    SourceKind,
    Suite,
    decode_key_file,
    encode_key_file,
    keyfile,
)

HIDDEN = b"#" * 30
WORDS = "#" * 30
SALT = bytes(32)
WRAPPED = Protection(kind=SourceKind.CALLABLE, salt=SALT, wrapped=b"w")


def shown(error, own=__file__):
    """All that a traceback with local variables shows of the frames that are not of the test's own
    file, and of the exceptions from which it comes.
    """
    text = []
    while error is not None:
        text.append(repr(error) + repr(vars(error)))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != own:
                text.append(repr(frame.f_locals))
        error = error.__context__
    return "".join(text)


def refused(call):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    return shown(caught.value)


NO_KEYS = [HIDDEN, bytearray(HIDDEN), WORDS + "\ud800", WORDS * 300, [HIDDEN]]


@pytest.mark.parametrize("key", NO_KEYS)
def test_a_key_that_is_none(tmp_path, key):
    path = str(tmp_path / "db")
    assert "####" not in refused(lambda: KeySource(key))
    assert "####" not in refused(lambda: holdfast.open(path, key=key))
    assert "####" not in refused(lambda: asyncio.run(holdfast.aio.open(path, key=key)))
    with holdfast.open(path, key=bytes(32)) as db:
        assert "####" not in refused(lambda: db.rekey(key))


@pytest.mark.parametrize(
    "answer",
    [
        HIDDEN,
        (HIDDEN, b"w"),
        (HIDDEN + b"##", b""),
        (HIDDEN + b"##", "w"),
        (HIDDEN + b"##", b"w" + HIDDEN + b"##"),
    ],
)
def test_the_answer_of_a_callable(answer):
    source = KeySource(lambda wrapped: answer)
    assert "####" not in refused(lambda: source.protect(SALT, SCRYPT_DEFAULT))


@pytest.mark.parametrize("answer", [HIDDEN, WORDS])
def test_the_answer_of_a_callable_for_a_wrapped_key(answer):
    source = KeySource(lambda wrapped: answer)
    assert "####" not in refused(lambda: source.unlock(WRAPPED))


def key_file(keys, epoch):
    """A closed key file with these data keys, and what opens it."""
    source = KeySource(bytes(32))
    protection, wrapping = source.protect(SALT)
    made = KeyFile(
        ring_id=bytes(16),
        iteration=1,
        suite=Suite.AES_256_GCM,
        epoch=epoch,
        keys={number: Secret(key) for number, key in keys.items()},
    )
    data = encode_key_file(made, protection, wrapping, bytes(12))
    return decode_key_file(data, "KEYS.1", 1), source


def test_data_keys_whose_epochs_do_not_agree():
    closed, source = key_file({1: HIDDEN + b"##", 2: HIDDEN + b"##"}, epoch=5)
    with pytest.raises(holdfast.CorruptionError, match="do not agree") as caught:
        closed.unlock(source)
    assert "####" not in shown(caught.value)


def test_data_keys_that_find_no_memory(monkeypatch):
    closed, source = key_file({1: HIDDEN + b"##", 2: HIDDEN + b"##"}, epoch=1)
    made = []

    def failing(data):
        made.append(data)
        if len(made) == 2:
            raise MemoryError
        return Secret(data)

    monkeypatch.setattr(keyfile, "Secret", failing)
    with pytest.raises(MemoryError) as caught:
        closed.unlock(source)
    assert len(made) == 2
    assert "####" not in shown(caught.value)


def test_data_keys_that_cannot_be_sealed(monkeypatch):
    class Failing:
        def encrypt_into(self, *arguments):
            raise MemoryError

    monkeypatch.setattr(keyfile, "make_aead", lambda suite, key: Failing())
    with pytest.raises(MemoryError) as caught:
        key_file({1: HIDDEN + b"##"}, epoch=1)
    assert "####" not in shown(caught.value)


def test_the_check_finds_a_key_where_there_is_one():
    try:
        int(WORDS)
    except ValueError as error:
        assert "####" in shown(error)
