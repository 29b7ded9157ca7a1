"""Both twins of `holdfast.crypto._cipher` make the same pieces and refuse the same ones."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.crypto import Secret, _cipher_c, _cipher_py
from holdfast.crypto.piece import SALT_BYTES, SEAL_BYTES, SealError
from holdfast.crypto.suite import Suite, make_aead

TWINS = [pytest.param(_cipher_c, id="c"), pytest.param(_cipher_py, id="py")]
both = pytest.mark.parametrize("twin", TWINS)
SALT = bytes(range(SALT_BYTES))
CONTEXT = b"what all pieces of a file are bound to"
PLACES = st.integers(min_value=0, max_value=(1 << 64) - 1)


def cipher(twin: Any, suite: Suite = Suite.AES_256_GCM, context: bytes = CONTEXT) -> Any:
    return twin.FileCipher(make_aead(suite, Secret(b"k" * 32)), context, lambda count: SALT[:count])


@given(
    suite=st.sampled_from(Suite),
    context=st.binary(max_size=80),
    offset=PLACES,
    data=st.binary(max_size=300),
    associated=st.binary(max_size=30),
)
def test_both_make_the_same_piece_and_open_what_the_other_made(
    suite: Suite, context: bytes, offset: int, data: bytes, associated: bytes
) -> None:
    compiled, plain = (cipher(t, suite, context) for t in (_cipher_c, _cipher_py))
    piece = plain.seal(offset, data, associated)
    assert compiled.seal(offset, data, associated) == piece
    assert len(piece) == len(data) + SEAL_BYTES
    assert compiled.open(offset, piece, associated) == data
    assert plain.open(offset, piece, associated) == data


@both
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_bytes_is_taken(twin: Any, kind: Any) -> None:
    sealed = cipher(twin).seal(64, kind(b"content"), kind(b"extra"))
    assert cipher(twin).open(64, kind(sealed), kind(b"extra")) == b"content"
    assert cipher(twin).open(64, memoryview(b"front" + sealed)[5:], b"extra") == b"content"


@both
def test_a_piece_is_written_into_what_the_caller_has(twin: Any) -> None:
    target = bytearray(b"." * (SEAL_BYTES + 12))
    cipher(twin).seal_into(8, b"content", b"", memoryview(target)[2 : SEAL_BYTES + 9])
    assert target[:2] == b".."
    assert target[-3:] == b"..."
    assert cipher(twin).open(8, target[2:-3], b"") == b"content"


@both
def test_a_piece_opens_nowhere_else(twin: Any) -> None:
    sealed = cipher(twin).seal(64, b"content", b"extra")
    wrong = [
        (64, sealed, b"extrA"),
        (64, sealed, b""),
        (72, sealed, b"extra"),
        # The counter of the nonce is the same there.
        (64 + (8 << 32), sealed, b"extra"),
        (65, sealed, b"extra"),
        (64, sealed[:-1], b"extra"),
        (64, sealed + b"\x00", b"extra"),
        *((64, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"extra")
          for at in range(len(sealed))),
    ]  # fmt: skip
    for offset, piece, associated in wrong:
        with pytest.raises(SealError, match="does not match"):
            cipher(twin).open(offset, piece, associated)
    with pytest.raises(SealError):
        cipher(twin, context=CONTEXT + b"x").open(64, sealed, b"extra")


@both
@pytest.mark.parametrize("size", [0, 1, SALT_BYTES, SEAL_BYTES - 1])
def test_what_is_too_short_for_a_seal_is_refused(twin: Any, size: int) -> None:
    with pytest.raises(SealError, match="shorter than its seal"):
        cipher(twin).open(0, bytes(size), b"")


@both
def test_an_error_of_the_library_is_passed_on(twin: Any) -> None:
    class Broken:
        def encrypt_into(self, *arguments: object) -> int:
            raise MemoryError

        def decrypt(self, *arguments: object) -> bytes:
            raise MemoryError

        def decrypt_into(self, *arguments: object) -> int:
            if self.answer is None:
                raise MemoryError
            return self.answer

        answer: int | None = None

    broken = Broken()
    made = twin.FileCipher(broken, CONTEXT, lambda count: SALT[:count])
    with pytest.raises(MemoryError):
        made.seal(0, b"content", b"")
    with pytest.raises(MemoryError):
        made.open(0, bytes(SEAL_BYTES), b"")
    with pytest.raises(MemoryError):
        made.open_many([0], [memoryview(bytes(SEAL_BYTES))], [b""], [memoryview(bytearray())])
    # Whoever reads the target would read what was there before.
    broken.answer = 1
    with pytest.raises(AssertionError, match="a cipher keeps sizes"):
        made.open_many([0], [memoryview(bytes(SEAL_BYTES))], [b""], [memoryview(bytearray())])


@both
def test_many_pieces_are_sealed_as_each_by_itself_with_random_bytes_of_its_own(twin: Any) -> None:
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes(range(count))

    aead = make_aead(Suite.AES_256_GCM, Secret(b"k" * 32))
    made = twin.FileCipher(aead, CONTEXT, random_bytes)
    pieces = [b"a" * 10_000, b"", bytearray(b"content")]
    memory = bytearray(sum(map(len, pieces)) + 3 * made.seal_bytes + 2)
    targets, at = [], 1
    for piece in pieces:
        targets.append(memoryview(memory)[at : at + len(piece) + made.seal_bytes])
        at += len(targets[-1])
    made.seal_many([0, 16_384, 8], pieces, [b"x", b"y", b"z"], targets)
    assert drawn == [3 * SALT_BYTES]
    assert memory[0] == memory[-1] == 0
    salts = [bytes(target[:SALT_BYTES]) for target in targets]
    assert b"".join(salts) == bytes(range(3 * SALT_BYTES))
    for offset, extra, target, piece in zip((0, 16_384, 8), b"xyz", targets, pieces, strict=True):
        assert made.open(offset, target, bytes([extra])) == piece
        with pytest.raises(SealError):
            made.open(offset + 8, target, bytes([extra]))
    made.seal_many([], [], [], [])
    with pytest.raises(ValueError, match="zip"):
        made.seal_many([0, 8], [b"a"], [b"x"], [targets[0][:25]])


@both
def test_many_pieces_are_opened_up_to_the_first_that_does_not_open(twin: Any) -> None:
    made = cipher(twin)
    contents = [b"a" * 10_000, b"", b"content", b"more"]
    sealed = [made.seal(8 * at, content, b"x") for at, content in enumerate(contents)]
    for bad in range(5):
        pieces = [memoryview(piece) for piece in sealed]
        if bad < 4:
            pieces[bad] = memoryview(sealed[bad][:-1] + bytes([sealed[bad][-1] ^ 1]))
        targets = [bytearray(len(content)) for content in contents]
        views = [memoryview(target) for target in targets]
        assert made.open_many([0, 8, 16, 24], pieces, [b"x"] * 4, views) == bad
        assert [bytes(target) for target in targets[:bad]] == contents[:bad]
    assert made.open_many([], [], [], []) == 0
    assert made.open_many([8], [memoryview(sealed[0])], [b"x"], [memoryview(targets[0])]) == 0
    for size in range(SEAL_BYTES):
        assert made.open_many([0], [memoryview(bytes(size))], [b""], [memoryview(b"")]) == 0
    with pytest.raises(ValueError, match="zip"):
        made.open_many([0, 8], [memoryview(sealed[0])], [b"x"], [memoryview(targets[0])])


@both
def test_a_cipher_shows_nothing_and_is_not_copied(twin: Any) -> None:
    made = cipher(twin)
    assert repr(made) == "<cipher of a file>"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled or copied"):
            attempt(made)
