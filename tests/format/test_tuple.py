"""The examples of docs/format/tuple.md pack to the bytes it shows and unpack to the tuples."""

import re

import pytest

from holdfast.codec import pack_tuple, unpack_tuple


@pytest.fixture
def examples(root):
    text = (root / "docs" / "format" / "tuple.md").read_text()
    (block,) = re.findall(r"^```example\n(.*?)^```", text, re.M | re.S)
    pairs = []
    for line in block.splitlines():
        notation, data = re.fullmatch(r"(\(.*\)) {2,}(.*?)(?:;.*)?", line).groups()
        pairs.append((eval(notation), bytes.fromhex(data)))
    assert len(pairs) >= 5
    return pairs


def test_the_examples_pack_to_the_bytes_shown(examples):
    for values, data in examples:
        assert pack_tuple(values) == data


def test_the_examples_unpack_to_the_tuples_shown(examples):
    for values, data in examples:
        result = unpack_tuple(data)
        assert list(map(repr, result)) == list(map(repr, values))


def test_every_tag_of_the_grammar_is_read_and_no_other(root):
    text = (root / "docs" / "format" / "tuple.md").read_text()
    grammar = re.search(r"^element := (.*?)^```", text, re.M | re.S)[1]
    tags = set()
    for line in grammar.splitlines():
        first, last = re.match(r"(?: +\| )?([0-9a-f]{2})(?: to ([0-9a-f]{2}))?", line).groups()
        tags.update(range(int(first, 16), int(last or first, 16) + 1))
    for tag in range(256):
        try:
            unpack_tuple(bytes([tag]))
        except ValueError as error:
            assert ("unknown tag" not in str(error)) == (tag in tags)
        else:
            assert tag in tags
