"""The examples of docs/format/page.md decode to what the page says and encode as it shows."""

import re

import pytest

from holdfast.codec import Compression, open_page, page_seed, seal_page


def parse(block):
    """A block's fields by name: hexadecimal bytes, which further lines may continue."""
    fields = {}
    name = None
    for line in block.splitlines():
        text = line.split(";")[0].rstrip()
        found = re.fullmatch(r"([a-z ]+?)  +(.*)", text) if not text.startswith(" ") else None
        if found:
            name, text = found.groups()
        fields[name] = fields.get(name, b"") + bytes.fromhex(text)
    return fields


@pytest.fixture
def examples(root):
    text = (root / "docs" / "format" / "page.md").read_text()
    return [parse(block) for block in re.findall(r"^```example\n(.*?)^```", text, re.M | re.S)]


def test_the_examples_decode(examples):
    assert [Compression(example["compression"][0]) for example in examples] == [
        Compression.LZ4,
        Compression.NONE,
    ]
    for example in examples:
        seed = int.from_bytes(example["seed"], "little")
        assert open_page(example["stored"], seed, "page.md", 0) == (1, example["body"])


def test_the_examples_encode_to_the_same_bytes(examples):
    for example in examples:
        seed = page_seed(example["file id"], int.from_bytes(example["offset"], "little"))
        assert seed.to_bytes(8, "little") == example["seed"]
        compression = Compression(example["compression"][0])
        assert seal_page(example["body"], 1, compression, seed) == example["stored"]


def test_the_page_names_every_codec_by_its_number(root):
    text = (root / "docs" / "format" / "page.md").read_text()
    named = re.findall(r"compression (\d+), ([A-Z0-9]+)$", text, re.M)
    assert {name: int(number) for number, name in named} == {
        member.name: member.value for member in Compression
    }
