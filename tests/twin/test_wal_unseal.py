"""Both twins of `holdfast.wal._unseal` show the same plain bytes; hostile bytes lead neither
astray.
"""

from __future__ import annotations

import random
import signal
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import CorruptionError
from holdfast.codec import checksum
from holdfast.crypto import Secret, _cipher_c, _cipher_py
from holdfast.crypto.suite import Suite, make_aead
from holdfast.wal import _unseal_c, _unseal_py
from holdfast.wal.format import (
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    SEALED_MAGIC,
    record_bytes,
)

TWINS = {"c": (_unseal_c, _cipher_c), "py": (_unseal_py, _cipher_py)}
NUMBER, SALT, OFFSET = 7, 0xABCDEF, 4096


class Cipher:
    """The ciphers of one file for both twins."""

    def __init__(self, aead: Any = None) -> None:
        aead = aead or make_aead(Suite.AES_256_GCM, Secret(b"k" * 32))
        rng = random.Random(1)
        self.twins = {
            name: module.FileCipher(aead, b"context", rng.randbytes)
            for name, (_, module) in TWINS.items()
        }

    def seal(self, offset: int, content: bytes, fields: bytes) -> bytes:
        sealed: bytes = self.twins["py"].seal(offset, content, fields)
        return sealed


CIPHER = Cipher()


def opened(
    twin: str, stored: Any, alignment: int = 8, front: bytes = b"", cipher: Cipher = CIPHER,
    offset: int = OFFSET,
) -> Any:  # fmt: skip
    """The plain bytes, or the error."""
    try:
        return TWINS[twin][0].open_records(
            front, stored, offset, NUMBER, SALT, alignment, cipher.twins[twin], "file"
        )
    except Exception as error:
        return type(error), str(error)


def agreed(stored: bytes, alignment: int = 8, front: bytes = b"") -> Any:
    """What both twins say."""
    plain = opened("py", stored, alignment, front)
    assert opened("c", stored, alignment, front) == plain
    return plain


class Segment:
    """Builds plain and sealed records side by side."""

    def __init__(self, alignment: int = 8) -> None:
        self.alignment = alignment
        self.plain = bytearray()
        self.stored = bytearray()
        self.offsets: list[int] = []

    def record(self, payload: bytes, fields: bytes = bytes(range(48))) -> Segment:
        size = len(payload).to_bytes(4, "little")
        front = RECORD_MAGIC.to_bytes(4, "little") + size + NUMBER.to_bytes(8, "little") + fields
        front += checksum(payload, SALT).to_bytes(8, "little")
        front += checksum(front, SALT).to_bytes(8, "little")
        clear = SEALED_MAGIC.to_bytes(4, "little") + size
        at = OFFSET + len(self.stored)
        whole = record_bytes(len(payload), self.alignment)
        self.offsets.append(len(self.stored))
        self.plain += (front + payload).ljust(whole, b"\0")
        self.stored += (clear + CIPHER.seal(at, fields + payload, clear)).ljust(whole, b"\0")
        return self

    def zeros(self, count: int) -> Segment:
        self.plain += bytes(count)
        self.stored += bytes(count)
        return self


def sample(alignment: int = 8) -> Segment:
    segment = Segment(alignment)
    for size in (1, 100, 7, 0, 300, 8):
        segment.record(bytes([size % 251]) * size, random.Random(size).randbytes(48))
    return segment.zeros(640)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_records_and_zeros_come_out_as_the_plain_format_has_them(alignment: int) -> None:
    segment = sample(alignment)
    assert agreed(bytes(segment.stored), alignment) == segment.plain
    assert agreed(bytes(segment.stored), alignment, b"front") == b"front" + segment.plain


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("twin", TWINS)
def test_every_kind_of_bytes_is_taken(twin: str, kind: Any) -> None:
    segment = sample()
    assert opened(twin, kind(bytes(segment.stored))) == segment.plain


def test_nothing_gives_nothing() -> None:
    assert agreed(b"") == b""
    assert agreed(bytes(30)) == bytes(30)
    assert agreed(b"x" + bytes(200)) == b"\xff" + bytes(200)
    assert agreed(bytes(11) + b"x" + bytes(8)) == b"\xff" * 12 + bytes(8)


def test_behind_damage_nothing_is_shown_but_what_opens() -> None:
    segment = sample()
    at, behind = segment.offsets[1], segment.offsets[2]
    stored = bytearray(segment.stored)
    stored[at + 40] ^= 1
    used = len(bytes(stored).rstrip(b"\0"))
    plain = agreed(bytes(stored))
    assert plain[:at] == segment.plain[:at]
    assert plain[at:behind] == b"\xff" * (behind - at)
    for offset, following in zip(segment.offsets[2:], [*segment.offsets[3:], None], strict=True):
        size = int.from_bytes(stored[offset + 4 : offset + 8], "little")
        end = offset + RECORD_HEADER_BYTES + size
        assert plain[offset:end] == segment.plain[offset:end]
        # Padding is not opened again behind damage: it counts as bytes that nobody wrote.
        assert set(plain[end : min(following or used, used)]) <= {0xFF}
    assert plain[used:] == bytes(len(plain) - used)


@pytest.mark.parametrize(("alignment", "shift"), [(8, 4), (16, 8), (512, 8), (512, 256)])
def test_behind_damage_no_record_opens_that_is_not_at_the_alignment(
    alignment: int, shift: int
) -> None:
    """Its seal is right, but no writer puts one there; the one at the alignment is found."""
    size = b"\x03\0\0\0"
    clear = SEALED_MAGIC.to_bytes(4, "little") + size
    for at, is_shown in ((512 + shift, False), (1024, True)):
        sealed = clear + CIPHER.seal(OFFSET + at, bytes(48) + b"abc", clear)
        stored = (b"?" * at + sealed).ljust(2048, b"\0")
        plain = agreed(stored, alignment)
        assert (plain[at + RECORD_HEADER_BYTES :][:3] == b"abc") is is_shown
        if not is_shown:
            used = at + len(sealed)
            assert plain == b"\xff" * used + bytes(2048 - used)


def test_padding_that_is_not_zero_is_damage() -> None:
    segment = Segment().record(b"abc").record(b"d")
    stored = bytearray(segment.stored)
    stored[RECORD_HEADER_BYTES + 4] = 1
    plain = agreed(bytes(stored))
    assert plain[RECORD_HEADER_BYTES + 3 : RECORD_HEADER_BYTES + 8] == b"\xff\xff\0\0\0"
    assert plain[segment.offsets[1] :] == segment.plain[segment.offsets[1] :]


def test_a_record_that_is_cut_off_is_not_shown() -> None:
    segment = Segment().record(b"first").record(b"second" * 20)
    at = segment.offsets[1]
    for size in range(at, at + RECORD_HEADER_BYTES + 120):
        plain = agreed(bytes(segment.stored[:size]))
        assert plain[:at] == segment.plain[:at]
        assert set(plain[at:].rstrip(b"\0")) <= {0xFF}


@given(st.data())
def test_every_change_is_seen_and_the_twins_agree(data: st.DataObject) -> None:
    alignment = data.draw(st.sampled_from([8, 32, 512]))
    segment = sample(alignment)
    stored = bytearray(segment.stored)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stored) - 1))
        stored[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stored)))
    plain = agreed(bytes(stored[:cut]), alignment)
    assert len(plain) == cut
    # No byte but those of the records, zeros and the veil: nothing of the ciphertext gets through.
    for at, (shown, known) in enumerate(zip(plain, segment.plain, strict=False)):
        assert shown in {known, 0, 0xFF}, at


@given(st.binary(max_size=300), st.sampled_from([8, 16]))
def test_any_bytes_are_read_alike(noise: bytes, alignment: int) -> None:
    magic = SEALED_MAGIC.to_bytes(4, "little")
    for stored in (noise, magic + noise, noise[:32].ljust(32, b"\0") + magic + noise):
        plain = agreed(stored, alignment)
        assert set(plain) <= {0, 0xFF}


def test_sizes_up_to_all_of_32_bits_stay_within_the_bytes() -> None:
    for size in (0, 1, 47, 48, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 80):
        stored = SEALED_MAGIC.to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(200)
        used = len(stored.rstrip(b"\0"))
        assert agreed(stored) == b"\xff" * used + bytes(len(stored) - used)


def hostile(count: int = 400) -> bytes:
    """Every 80 bytes something says that it is a record up to the end of the file."""
    stored = bytearray(b"\x01" * 80 * count)
    for at in range(0, len(stored) - 80, 80):
        left = len(stored) - at - 80
        stored[at : at + 8] = SEALED_MAGIC.to_bytes(4, "little") + left.to_bytes(4, "little")
    return bytes(stored)


def test_records_that_claim_all_that_follows_are_not_opened_for_ever() -> None:
    kind, text = agreed(hostile())
    assert kind is CorruptionError
    assert "again and again" in text


@pytest.mark.parametrize("more", [0, 1])
def test_as_many_bytes_are_tried_as_eight_times_the_stretch(more: int) -> None:
    stored = bytearray(hostile(20))
    budget = 8 * (len(stored) + 8)
    # The first ones claim all that follows, one of them what is left then, the rest nothing.
    left = budget + more
    for at in range(0, len(stored) - 80, 80):
        size = min(left, len(stored) - at - 80)
        left -= size
        stored[at + 4 : at + 8] = size.to_bytes(4, "little")
    assert left == 0
    plain = agreed(bytes(stored))
    assert plain == b"\xff" * len(stored) if more == 0 else plain[0] is CorruptionError


def test_what_claims_more_than_there_is_is_not_tried() -> None:
    stored = bytearray(hostile())
    for at in range(0, len(stored) - 80, 80):
        left = len(stored) - at - 80
        stored[at + 4 : at + 8] = (left + 1).to_bytes(4, "little")
    assert agreed(bytes(stored)) == b"\xff" * len(stored)


def test_the_smallest_record_at_the_end_of_a_stretch_opens() -> None:
    segment = Segment().record(b"first").record(b"")
    assert agreed(bytes(segment.stored)) == segment.plain
    stored = bytearray(segment.stored)
    stored[40] ^= 1
    assert agreed(bytes(stored))[segment.offsets[1] :] == segment.plain[segment.offsets[1] :]


@pytest.mark.parametrize("twin", TWINS)
def test_numbers_may_be_zero_and_have_64_bits(twin: str) -> None:
    module, cipher = TWINS[twin][0], CIPHER.twins[twin]
    for offset, number, salt in ((0, 0, 0), ((1 << 64) - 8, (1 << 64) - 1, (1 << 64) - 1)):
        shown = module.open_records(b"", b"x", offset, number, salt, 8, cipher, "file")
        assert shown == b"\xff"
    for arguments in ((-1, 1, 1), (0, 1 << 64, 1), (0, 1, -1)):
        with pytest.raises(OverflowError):
            module.open_records(b"", b"", *arguments, 8, cipher, "file")


@pytest.mark.parametrize("twin", TWINS)
def test_arguments_that_no_segment_has_are_refused(twin: str) -> None:
    for alignment in (0, 7, 12, 8192, -8):
        assert opened(twin, b"", alignment)[0] is ValueError
    assert opened(twin, b"", offset=-8)[0] is OverflowError
    assert opened(twin, b"", offset=1 << 64)[0] is OverflowError


@pytest.mark.parametrize("twin", TWINS)
def test_an_error_of_the_library_is_passed_on(twin: str) -> None:
    class Broken:
        answer: Any = MemoryError()

        def encrypt_into(self, *arguments: object) -> int:
            raise AssertionError

        def decrypt(self, *arguments: object) -> bytes:
            if isinstance(self.answer, Exception):
                raise self.answer
            answer: bytes = self.answer
            return answer

        def decrypt_into(self, *arguments: object) -> int:
            raise AssertionError

    stored = bytes(sample().stored)
    broken = Broken()
    assert opened(twin, stored, cipher=Cipher(broken))[0] is MemoryError
    # A library that gives another size than it got would lead the compiled twin astray.
    broken.answer = b"short"
    assert "a cipher keeps sizes" in opened(twin, stored, cipher=Cipher(broken))[1]


def test_the_compiled_twin_lets_threads_and_signals_have_their_turn() -> None:
    """A thread that waits for the interpreter gets it in a long run of records, and the signal it
    sends ends the run: what stands at the end, and would be an error, is not reached.
    """

    class InterruptedBySignal(Exception):  # noqa: N818  no error, but a signal
        pass

    def interrupt(*_: object) -> None:
        raise InterruptedBySignal

    segment = Segment()
    for _ in range(20_000):
        segment.record(b"")
    stored = bytes(segment.stored) + b"\x01" * 8 + hostile(1000)
    assert opened("c", stored)[0] is CorruptionError
    main = threading.main_thread().ident
    assert main is not None

    def is_interrupted() -> bool:
        """Open the records while another thread sends the signal; return whether that ended it."""
        begun = threading.Event()

        def send() -> None:
            begun.wait()
            signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            begun.set()
            try:
                TWINS["c"][0].open_records(
                    b"", stored, OFFSET, NUMBER, SALT, 8, CIPHER.twins["c"], "file"
                )
            except InterruptedBySignal:
                return True
            except CorruptionError:
                # The signal comes later.
                thread.join()
        except InterruptedBySignal:
            pass
        finally:
            thread.join()
        return False

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        # A busy machine may have no processor for the other thread as long as one run takes.
        assert any(is_interrupted() for _ in range(20))
    finally:
        signal.signal(signal.SIGUSR1, before)
