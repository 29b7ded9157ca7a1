"""Both twins of `holdfast.sstable._source` give the pages that were written, or the same error for
the same damage, whether the file has a descriptor or not; and a close waits for who reads.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import PURE, PUT, CorruptionError, DatabaseClosedError, pack_trailer
from holdfast.bufferpool import Page
from holdfast.codec import Compression, PageCipher, checksum, compress, page_seed, seal_page
from holdfast.codec import zstandard as codec_zstandard
from holdfast.crypto import FileKind
from holdfast.env import PosixEnv
from holdfast.sstable import (
    Handle,
    PageType,
    SealedTable,
    _filter_py,
    _source_c,
    _source_py,
    decode_entries,
)
from tests.format.sealed_files import ring
from tests.twin.test_sstable_filter import build as build_filter
from tests.twin.test_sstable_page import encode_page
from tests.twin.test_sstable_reader import FILE_ID, MemoryFile, outcome
from tests.twin.test_sstable_reader_ahead import DiskFile

# Compiled kernels take compiled pages only, so in plain mode the plain twin is alone.
MODULES = (_source_py,) if PURE else (_source_c, _source_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)
compressions = pytest.mark.parametrize("compression", list(Compression))

AT = 40
"""Where the page lies; what is around it is no page."""
NAME = "00000009.table"
PUTS = [(b"key/%04d" % n, pack_trailer(0, PUT), b"value %d;" % n * (n % 7)) for n in range(200)]
BODY = encode_page(PUTS)
STAMP = pack_trailer(77, PUT)

BODIES = {
    PageType.DATA: BODY,
    PageType.INDEX: BODY,
    PageType.INDEX_ROOT: BODY,
    PageType.FILTER: build_filter(_filter_py, 10, [checksum(key) for key, _, _ in PUTS]),
    PageType.RANGE_TOMBSTONES: encode_page([(b"a", pack_trailer(5, 2), b"b")]),
    PageType.PROPERTIES: encode_page([(b"name", 0, b"value")]),
}
SEED = page_seed(FILE_ID, AT)


def stored_page(
    body: bytes, page_type: int, compression: int = 0, cipher: PageCipher | None = None
) -> bytes:
    return seal_page(body, page_type, compression, SEED, cipher, AT)


def forged(payload: bytes, compression: int, size: int, zero: int = 0, page_type: int = 1) -> bytes:
    """A stored page of any fields under a sound checksum."""
    page = payload + struct.pack("<BBHI", compression, page_type, zero, size)
    return page + checksum(page, SEED).to_bytes(8, "little")


def handle_of(stored: bytes) -> Handle:
    return Handle(AT, len(stored), int.from_bytes(stored[-8:], "little"))


def in_file(stored: bytes) -> bytes:
    return b"~" * AT + stored + b"~" * 128


def sealed(file: Any) -> SealedTable:
    preamble, cipher = ring().new_file(FileKind.TABLE)
    return SealedTable(file, cipher, preamble, is_new=False)


def page_cipher() -> PageCipher:
    """That of every `sealed` file: the ring makes no two that differ."""
    return sealed(MemoryFile(b"")).cipher


class Sources:
    """Every twin over files of every kind, all of which say the same."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files: list[MemoryFile] = []

    def over(self, data: bytes, *, stamp: int = 0, is_sealed: bool = False) -> Iterator[Any]:
        for twin in MODULES:
            files = [MemoryFile(data)]
            if self._folder is not None:
                files.append(DiskFile(self._folder / f"t{len(self._files)}", data))
            self._files += files
            for file in files:
                face = sealed(file) if is_sealed else file
                yield twin.PageSource(face, FILE_ID, len(data) - 128, stamp)

    def read(
        self, stored: bytes, page_type: int, handle: Handle | None = None, **options: Any
    ) -> Any:
        """What they all answer: type and body, or the error."""
        handle = handle or handle_of(stored)
        found = [
            outcome(lambda source=source: shown(source.read(handle, page_type)))
            for source in self.over(in_file(stored), **options)
        ]
        assert found == [found[0]] * len(found)
        return found[0]

    def close(self) -> None:
        for file in self._files:
            file.close()


def shown(page: Page) -> tuple[int, bytes]:
    return page.page_type, bytes(page)


def damage(reason: str) -> tuple[type, tuple[str, int, str]]:
    return CorruptionError, (NAME, AT, reason)


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Sources]:
    made = Sources(tmp_path)
    yield made
    made.close()


def source_of(twin: ModuleType, file: Any, **options: Any) -> Any:
    return twin.PageSource(file, FILE_ID, file.size() - 128, options.get("stamp", 0))


@compressions
@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("page_type", list(PageType))
def test_a_page_gives_back_its_body(
    sources: Sources, compression: Compression, is_sealed: bool, page_type: PageType
) -> None:
    body = BODIES[page_type]
    stored = stored_page(body, page_type, compression, page_cipher() if is_sealed else None)
    assert (page_type, body) == sources.read(stored, page_type, is_sealed=is_sealed)


@compressions
def test_a_large_page_gives_back_its_body(sources: Sources, compression: Compression) -> None:
    choose = random.Random(3)
    body = encode_page(
        [
            (b"%06d" % n, pack_trailer(9, PUT), choose.randbytes(20).hex().encode())
            for n in range(12_000)
        ]
    )
    stored = stored_page(body, PageType.DATA, compression)
    assert (compression, True) == (stored[-16], len(stored) > 1 << 18)
    assert (PageType.DATA, body) == sources.read(stored, PageType.DATA)


@compressions
@pytest.mark.parametrize("is_sealed", [False, True])
def test_entries_of_an_ingested_table_get_their_trailer(
    sources: Sources, compression: Compression, is_sealed: bool
) -> None:
    options = {"stamp": STAMP, "is_sealed": is_sealed}
    cipher = page_cipher() if is_sealed else None
    page_type, body = sources.read(
        stored_page(BODY, PageType.DATA, compression, cipher), PageType.DATA, **options
    )
    found = decode_entries(Page(body, page_type), NAME, AT)
    assert [(key, STAMP, value) for key, _, value in PUTS] == found
    stored = stored_page(BODY, PageType.INDEX, compression, cipher)
    assert (PageType.INDEX, BODY) == sources.read(stored, PageType.INDEX, **options)
    numbered = encode_page([*PUTS, (b"key/x", pack_trailer(3, PUT), b"")])
    stored = stored_page(numbered, PageType.DATA, compression, cipher)
    reason = "an entry of an ingested table is not a put with the number 0"
    assert damage(reason) == sources.read(stored, PageType.DATA, **options)


@compressions
@pytest.mark.parametrize("is_sealed", [False, True])
def test_every_damaged_byte_is_found(compression: Compression, is_sealed: bool) -> None:
    cipher = page_cipher() if is_sealed else None
    stored = stored_page(encode_page(PUTS[:40]), PageType.DATA, compression, cipher)
    reason = "the page's checksum does not match"
    for at in range(len(stored)):
        broken = bytearray(stored)
        broken[at] ^= 1 << at % 8
        handle = handle_of(stored)
        assert damage(reason) == Sources().read(
            bytes(broken), PageType.DATA, handle, is_sealed=is_sealed
        )


LZ4, ZSTD = Compression.LZ4, Compression.ZSTD
FRAME = compress(ZSTD, BODY)
MALFORMED = "the page's compressed payload is malformed"
FORGERIES = {
    "no codec": (forged(BODY, 3, len(BODY)), "the page's compression is unknown"),
    "sealed": (forged(BODY, 0x10, len(BODY)), "the page's compression is unknown"),
    "reserved": (
        forged(BODY, 0, len(BODY), 1),
        "a reserved field of the page's trailer is not zero",
    ),
    "beyond the limit": (
        forged(FRAME, ZSTD, 1 << 31),
        "the page's body length is beyond the limit",
    ),
    "lengths differ": (
        forged(BODY, 0, len(BODY) - 1),
        "the page's body length differs from its stored length",
    ),
    "impossible LZ4": (
        forged(b"abc", LZ4, 3 * 255 + 1),
        "the page's body length is more than its payload can expand to",
    ),
    "impossible ZSTD": (
        forged(b"abc", ZSTD, 3 * 32768 + 1),
        "the page's body length is more than its payload can expand to",
    ),
    "no LZ4": (forged(b"\xff" * 99, LZ4, 99), MALFORMED),
    "LZ4 of another size": (forged(compress(LZ4, BODY), LZ4, len(BODY) - 1), MALFORMED),
    "no ZSTD": (forged(b"\xff" * 99, ZSTD, 99), MALFORMED),
    "no ZSTD at all": (forged(b"", ZSTD, 0), MALFORMED),
    "ZSTD of another size": (forged(FRAME, ZSTD, len(BODY) - 1), MALFORMED),
    "ZSTD cut": (forged(FRAME[:-1], ZSTD, len(BODY)), MALFORMED),
    "ZSTD twice": (forged(FRAME * 2, ZSTD, len(BODY)), MALFORMED),
    "ZSTD and a byte": (forged(FRAME + b"\0", ZSTD, len(BODY)), MALFORMED),
    "ZSTD broken": (forged(FRAME[:20] + b"?" * 9 + FRAME[29:], ZSTD, len(BODY)), MALFORMED),
}


@pytest.mark.parametrize(("stored", "reason"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_envelope_is_named(sources: Sources, stored: bytes, reason: str) -> None:
    assert damage(reason) == sources.read(stored, PageType.DATA)


@compressions
def test_a_page_is_sealed_where_its_file_is(sources: Sources, compression: Compression) -> None:
    plain = stored_page(BODY, PageType.DATA, compression)
    reason = "the page is not sealed, and its file is"
    assert damage(reason) == sources.read(plain, PageType.DATA, is_sealed=True)
    stored = bytearray(stored_page(BODY, PageType.DATA, compression, page_cipher()))
    reason = "the page's compression is unknown"
    assert damage(reason) == sources.read(bytes(stored), PageType.DATA)
    stored[3] ^= 1
    stored[-8:] = checksum(bytes(stored[:-8]), SEED).to_bytes(8, "little")
    reason = "the page's seal does not match"
    assert damage(reason) == sources.read(bytes(stored), PageType.DATA, is_sealed=True)


STRUCTURES = {
    PageType.DATA: (encode_page(PUTS[:100] + PUTS[:100]), "the entries are out of order"),
    PageType.INDEX: (BODY[:-1] + b"\1", "the restart offsets do not fit the page"),
    PageType.INDEX_ROOT: (BODY[:-4] + bytes(4), "a page has entries but no restart offset"),
    PageType.FILTER: (
        BODIES[PageType.FILTER][:8] + bytes(999),
        "a filter's block count does not match its size",
    ),
    PageType.RANGE_TOMBSTONES: (BODY, "an entry has a kind that does not belong into its page"),
    PageType.PROPERTIES: (BODY, "an entry has a kind that does not belong into its page"),
}


@compressions
@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("page_type", list(PageType))
def test_a_sound_envelope_does_not_make_a_page(
    sources: Sources, compression: Compression, is_sealed: bool, page_type: PageType
) -> None:
    body, reason = STRUCTURES[page_type]
    stored = stored_page(body, page_type, compression, page_cipher() if is_sealed else None)
    assert compression == stored[-16] & 0xF, "it is worth compressing"
    assert damage(reason) == sources.read(stored, page_type, is_sealed=is_sealed)


@compressions
@pytest.mark.parametrize("is_sealed", [False, True])
def test_the_first_that_is_wrong_is_the_error(
    sources: Sources, compression: Compression, is_sealed: bool
) -> None:
    """In this order: the envelope, the checksum in the handle, the type, the structure."""
    options = {"is_sealed": is_sealed}
    cipher = page_cipher() if is_sealed else None
    stored = stored_page(STRUCTURES[PageType.DATA][0], PageType.DATA, compression, cipher)
    right = handle_of(stored)
    wrong = Handle(right.offset, right.size, right.checksum ^ 1)
    broken = stored[:-1] + bytes([stored[-1] ^ 1])
    answers = [
        sources.read(broken, PageType.INDEX, wrong, **options),
        sources.read(stored, PageType.INDEX, wrong, **options),
        sources.read(stored, PageType.INDEX, right, **options),
        sources.read(stored, PageType.DATA, right, **options),
    ]
    assert answers == [
        damage("the page's checksum does not match"),
        damage("the page is not the one that its handle names"),
        damage("the page has the type 1; its place wants 2"),
        damage("the entries are out of order"),
    ]


def test_a_malformed_payload_comes_before_a_wrong_handle(sources: Sources) -> None:
    stored = FORGERIES["ZSTD cut"][0]
    wrong = Handle(AT, len(stored), 1)
    assert damage(MALFORMED) == sources.read(stored, PageType.INDEX, wrong)


def test_a_handle_that_can_be_no_page_is_not_followed(sources: Sources) -> None:
    stored = stored_page(BODY, PageType.DATA)
    limit = AT + len(stored)
    for size, reason in (
        (15, "a page handle has the size 15, less than a page trailer"),
        (
            len(stored) + 1,
            f"a page handle points to {AT} to {limit + 1}, behind the last page at {limit}",
        ),
    ):
        assert damage(reason) == sources.read(stored, PageType.DATA, Handle(AT, size, 1))


@twins
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_file_that_ends_early_is_damage(twin: Any, on_disk: bool, tmp_path: Path) -> None:
    stored = stored_page(BODY, PageType.DATA, Compression.ZSTD)
    data = in_file(stored)
    for end in (0, AT, AT + 1, AT + len(stored) - 1):
        (tmp_path / "t").write_bytes(data)
        file: Any = PosixEnv().open(str(tmp_path / "t")) if on_disk else MemoryFile(data)
        source = source_of(twin, file)
        if on_disk:
            os.truncate(tmp_path / "t", end)
        else:
            file.data = data[:end]
        with pytest.raises(CorruptionError, match="the file ends within the page") as caught:
            source.read(handle_of(stored), PageType.DATA)
        assert (file.name, AT) == (caught.value.file, caught.value.offset)
        source.close()


@twins
def test_errors_of_the_system_are_passed_on(twin: Any, tmp_path: Path) -> None:
    stored = stored_page(BODY, PageType.DATA)
    file = MemoryFile(in_file(stored))
    source = source_of(twin, file)
    file.failure = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        source.read(handle_of(stored), PageType.DATA)
    file.failure = None
    assert (PageType.DATA, BODY) == shown(source.read(handle_of(stored), PageType.DATA))
    (tmp_path / "t").write_bytes(in_file(stored))
    real = PosixEnv().open(str(tmp_path / "t"))
    source = source_of(twin, real)
    with (tmp_path / "t").open("ab") as unreadable:  # the number stays the file's to close
        os.dup2(unreadable.fileno(), real.fileno())
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        source.read(handle_of(stored), PageType.DATA)
    assert caught.value.errno == 9
    source.close()


@twins
def test_a_file_id_has_16_bytes(twin: Any) -> None:
    for file_id in (b"", bytes(15), bytes(17)):
        with pytest.raises(ValueError, match="a file id has 16 bytes"):
            twin.PageSource(MemoryFile(b""), file_id, 0, 0)


# What takes a library.


@pytest.fixture
def decompressor(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Put a function in the place of the library's for the next page that needs it."""

    def put(function: Any) -> None:
        kept: Any = defaultdict(list)
        kept[(len(BODY) - 1).bit_length()].append(function)
        monkeypatch.setattr(codec_zstandard, "_decompressors", kept)

    return put


FRAMED = stored_page(BODY, PageType.DATA, ZSTD)


def test_memory_that_the_library_lacks_is_no_damage(sources: Sources, decompressor: Any) -> None:
    error = codec_zstandard._library().error

    def fail(data: Any, size: int) -> bytes:
        raise error("allocation error : not enough memory")

    for source in sources.over(in_file(FRAMED)):
        decompressor(fail)
        with pytest.raises(MemoryError, match="no memory for decompression"):
            source.read(handle_of(FRAMED), PageType.DATA)
        assert (PageType.DATA, BODY) == shown(source.read(handle_of(FRAMED), PageType.DATA))


def test_the_library_is_given_the_stored_page_itself(sources: Sources, decompressor: Any) -> None:
    """The payload is no copy, and stays what it is for as long as somebody has it."""
    for source in sources.over(in_file(FRAMED)):
        given: list[memoryview] = []

        def keep(data: memoryview, size: int, given: list[memoryview] = given) -> bytes:
            given.append(data)
            raise ValueError("malformed")

        decompressor(keep)
        with pytest.raises(CorruptionError) as caught:
            source.read(handle_of(FRAMED), PageType.DATA)
        assert damage(MALFORMED)[1] == caught.value.args
        assert caught.value.__suppress_context__
        source.close()
        junk = [bytes([n]) * len(FRAMED) for n in range(99)]
        assert FRAMED[:-16] == given[0], len(junk)
        assert FRAMED == given[0].obj


@twins
@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_read_while_it_is_closed_is_read_to_its_end(
    twin: Any, on_disk: bool, tmp_path: Path, decompressor: Any
) -> None:
    data = in_file(FRAMED)
    file = DiskFile(tmp_path / "t", data) if on_disk else MemoryFile(data)
    source = source_of(twin, file)

    def close_first(data: memoryview, size: int) -> bytes:
        source.close()
        return codec_zstandard._library().make_decompressor(20)(data, size)

    decompressor(close_first)
    assert (PageType.DATA, BODY) == shown(source.read(handle_of(FRAMED), PageType.DATA))
    assert file.closed
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        source.read(handle_of(FRAMED), PageType.DATA)


@twins
def test_a_close_waits_for_all_that_read(twin: Any) -> None:
    file = MemoryFile(in_file(FRAMED))
    source = source_of(twin, file)
    read_at = file.read_at
    seen: list[bool] = []

    def read_within(offset: int, count: int) -> bytes:
        file.read_at = read_close  # type: ignore[method-assign]
        source.read(handle_of(FRAMED), PageType.DATA)
        seen.append(file.closed)
        return read_at(offset, count)

    def read_close(offset: int, count: int) -> bytes:
        source.close()
        seen.append(file.closed)
        return read_at(offset, count)

    file.read_at = read_within  # type: ignore[method-assign]
    assert (PageType.DATA, BODY) == shown(source.read(handle_of(FRAMED), PageType.DATA))
    assert ([False, False], True) == (seen, file.closed)


@twins
def test_a_close_that_nobody_reads_under_closes_at_once(twin: Any) -> None:
    file = MemoryFile(in_file(FRAMED))
    source = source_of(twin, file)
    assert (file, NAME, len(file.data) - 128) == (source.file, source.name, source.limit)
    source.close()
    assert file.closed
    file.closed = False
    source.close()
    assert not file.closed
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        source.read(Handle(0, 1, 1), PageType.DATA)
    assert not file.closed


@twins
def test_a_failed_read_counts_no_longer(twin: Any) -> None:
    file = MemoryFile(in_file(FRAMED))
    source = source_of(twin, file)
    file.failure = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        source.read(handle_of(FRAMED), PageType.DATA)
    source.close()
    assert file.closed


@twins
@pytest.mark.parametrize("error", [None, OSError(5, "Input/output error")])
def test_a_close_waits_for_who_uses_the_file(twin: Any, error: OSError | None) -> None:
    file = MemoryFile(in_file(FRAMED))
    source = source_of(twin, file)

    def work(given: Any) -> int:
        assert given is file
        source.close()
        assert not file.closed
        if error is not None:
            raise error
        return 7

    if error is None:
        assert source.use(work) == 7
    else:
        with pytest.raises(OSError, match="Input/output error"):
            source.use(work)
    assert file.closed
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        source.use(work)


@twins
def test_no_thread_reads_from_a_descriptor_that_was_closed(twin: Any, tmp_path: Path) -> None:
    """Another file takes the number at once, which would be damage."""
    other = tmp_path / "other"
    other.write_bytes(bytes(len(in_file(FRAMED))))
    for round_ in range(10):
        file = DiskFile(tmp_path / "t", in_file(FRAMED))
        source = source_of(twin, file)
        answers: list[Any] = []
        begun = threading.Barrier(4)

        def read(source: Any = source, answers: list[Any] = answers, begun: Any = begun) -> None:
            begun.wait()
            try:
                while True:
                    answers.append(shown(source.read(handle_of(FRAMED), PageType.DATA)))
            except Exception as error:  # what it is, is compared below
                answers.append(type(error))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        while len(answers) < 20 * round_ and any(thread.is_alive() for thread in threads):
            time.sleep(0.0001)
        source.close()
        numbers = [os.open(other, os.O_RDONLY) for _ in range(3)]
        for thread in threads:
            thread.join()
        for number in numbers:
            os.close(number)
        assert {(PageType.DATA, BODY), DatabaseClosedError} >= set(answers)
        assert file.closed


SMALL = encode_page(PUTS[:12], 4)


@settings(max_examples=600)
@given(st.data())
def test_twins_agree_on_hostile_bytes_under_sound_checksums(data: Any) -> None:
    """Bodies, payloads and fields of which some bytes are others."""
    bytes_ = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 2, 0x10, 0x7F, 0x80, 0xFF]))

    def mutated(source: bytes) -> bytes:
        target = bytearray(source)
        for _ in range(data.draw(st.integers(0, 3))):
            target[data.draw(st.integers(0, len(target) - 1))] = data.draw(bytes_)
        return bytes(target)

    page_type = data.draw(st.sampled_from(list(PageType)))
    body = BODIES[PageType.FILTER] if page_type == PageType.FILTER else SMALL
    compression = data.draw(st.sampled_from(list(Compression)))
    stored = mutated(stored_page(mutated(body), page_type, compression)[:-8])
    stored += checksum(stored, SEED).to_bytes(8, "little")
    Sources().read(stored, page_type, stamp=data.draw(st.sampled_from([0, STAMP])))
