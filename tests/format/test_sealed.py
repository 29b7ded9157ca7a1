"""The examples of docs/format/sealed.md and docs/format/keys.md open to what the pages say, and
sealing that gives their bytes.
"""

import re

import pytest

from holdfast.base import WrongKeyError
from holdfast.codec import Compression, open_page, page_seed, seal_page
from holdfast.crypto import (
    FileKind,
    KeyFile,
    KeySource,
    Protection,
    ScryptCost,
    Secret,
    SourceKind,
    Suite,
    decode_key_file,
    encode_key_file,
)
from holdfast.manifest import ManifestSealing
from holdfast.sstable import TableSealing
from holdfast.wal import LogSealing
from tests.format import sealed_files as files

EXAMPLE = re.compile(r"^```hex\n(.*?)^```", re.M | re.S)


def dump(block):
    """The bytes of a block of lines "offset  bytes"; what is not shown is zero."""
    data = bytearray()
    for line in block.splitlines():
        place, _, shown = line.partition("  ") if "  " in line else line.partition(": ")
        part = bytes.fromhex(shown)
        end = int(place, 16) + len(part)
        data.extend(bytes(max(end - len(data), 0)))
        data[int(place, 16) : end] = part
    return bytes(data)


def blocks(root, page):
    text = (root / "docs" / "format" / page).read_text()
    return [dump(block) for block in EXAMPLE.findall(text)]


def plain_segment(root):
    """The first example of docs/format/wal.md, all its blocks in one file."""
    text = (root / "docs" / "format" / "wal.md").read_text()
    shown = text[text.index("## Example\n") : text.index("## Example with")]
    lines = "".join(re.findall(r"^```\n(.*?)^```", shown, re.M | re.S))
    return dump(lines).ljust(8192, b"\0")


@pytest.fixture
def examples(root):
    return dict(zip(("page", "tail", "log", "manifest"), blocks(root, "sealed.md"), strict=True))


def make_page():
    _, cipher = files.ring().new_file(FileKind.TABLE)
    seed = page_seed(bytes(range(16)), 4096)
    return seal_page(b"2026-11-22 20.5;" * 3, 1, Compression.LZ4, seed, cipher, 4096)


def make_tail():
    file = files.MemoryFile()
    table = TableSealing().created(file, files.ring())
    table.write_at(0, bytes(range(128)), site="example")
    table.sync(site="example")
    return bytes(file.data[128:])


def make_log(plain):
    file = files.MemoryFile()
    segment = LogSealing().created(file, files.ring())
    segment.allocate(len(plain), written=True, site="example")
    segment.write_at(0, plain[:4096], site="example")
    segment.write_at(0x1000, plain[0x1000:0x1070], site="example")
    segment.write_and_sync_at(0x1070, plain[0x1070:0x10C8], site="example", sync_site="example")
    return bytes(file.data)


def make_manifest(plain):
    file = files.MemoryFile()
    manifest = ManifestSealing().created(file, files.ring())
    manifest.write_at(0, plain[:0x188], site="example")
    manifest.write_at(0x188, plain[0x188:], site="example")
    return bytes(file.data)


def test_a_sealed_page_opens(examples):
    _, cipher = files.ring().new_file(FileKind.TABLE)
    seed = page_seed(bytes(range(16)), 4096)
    body = b"2026-11-22 20.5;" * 3
    assert open_page(examples["page"], seed, "page", 4096, cipher) == (1, body)
    assert make_page() == examples["page"]


def test_the_tail_of_a_table_opens(examples):
    assert make_tail() == examples["tail"]
    footer = bytes(range(128))
    table = TableSealing().opened(files.MemoryFile(footer + examples["tail"]), files.ring())
    assert table.size() == 128


def test_a_sealed_segment_opens_to_the_example_of_the_log(root, examples):
    plain = plain_segment(root)
    sealed = examples["log"].ljust(8192, b"\0")
    segment = LogSealing().opened(files.MemoryFile(sealed), files.ring())
    assert segment.read_at(0, 8192) == plain
    assert segment.size() == 8192
    assert make_log(plain) == sealed


def test_a_sealed_manifest_opens_to_the_example_of_the_manifest(root, examples):
    plain = blocks(root, "manifest.md")[0]
    manifest = ManifestSealing().opened(files.MemoryFile(examples["manifest"]), files.ring())
    assert manifest.read_at(0, manifest.size()) == plain
    assert make_manifest(plain) == examples["manifest"]


def make_keys():
    keys = KeyFile(
        ring_id=files.RING_ID,
        iteration=2,
        suite=Suite.AES_256_GCM,
        epoch=3,
        keys={2: Secret(bytes(range(32))), 3: Secret(files.DATA_KEY)},
    )
    salt = bytes(range(0xA0, 0xC0))
    protection = Protection(
        kind=SourceKind.PASSPHRASE, salt=salt, cost=ScryptCost(10, 8, 1), wrapped=b""
    )
    wrapping = KeySource("correct horse").unlock(protection)
    return encode_key_file(keys, protection, wrapping, bytes(range(0xF0, 0xFC)))


def test_the_key_file_opens_with_its_passphrase_only(root):
    (stored,) = blocks(root, "keys.md")
    assert make_keys() == stored
    closed = decode_key_file(stored, "KEYS.2", 2)
    keys, _ = closed.unlock(KeySource("correct horse"))
    assert {epoch: key.reveal() for epoch, key in keys.keys.items()} == {
        2: bytes(range(32)),
        3: files.DATA_KEY,
    }
    assert (keys.ring_id, keys.iteration, keys.epoch) == (files.RING_ID, 2, 3)
    with pytest.raises(WrongKeyError):
        closed.unlock(KeySource("wrong horse"))


def shown(data, start=0, width=16):
    """Lines of a dump, for whoever writes the pages anew."""
    lines = []
    for at in range(0, len(data), width):
        part = data[at : at + width]
        if any(part):
            lines.append(f"{start + at:04x}  {part.hex(' ')}")
    return "\n".join(lines)
