"""The examples of docs/format/merge.md fold to the values it shows, and are what is written."""

import ast
import re

import pytest

from holdfast.base import MergeError
from holdfast.merge import Merges, split, unpack_set
from holdfast.merge.function import number_from

OPERANDS = [
    ("add", 10),
    ("add", -3),
    ("max", 100),
    ("min", 99),
    ("append", b".5"),
    ("last", b"\x01a"),
    ("union", [b"bb", b"b"]),
]
MERGES = Merges({"last": lambda value, operands: operands[-1]})


@pytest.fixture
def examples(root):
    text = (root / "docs" / "format" / "merge.md").read_text()
    (block,) = re.findall(r"^```example\n(.*?)^```", text, re.M | re.S)
    found = []
    for line in block.splitlines():
        data, value = re.fullmatch(r"(.*?); .*? {2,}(b\".*\")", line).groups()
        found.append((bytes.fromhex(data), ast.literal_eval(value)))
    return found


def test_the_examples_are_what_is_written(examples):
    assert [entry for entry, _ in examples] == [
        MERGES.value_of(function, operand) for function, operand in OPERANDS
    ]


def test_the_examples_fold_to_the_values_shown(examples):
    entries = []
    for entry, value in examples:
        entries.insert(0, entry)
        assert MERGES.fold(b"k", None, entries) == value


def test_every_first_byte_of_the_grammar_is_read_and_no_other(root):
    text = (root / "docs" / "format" / "merge.md").read_text()
    grammar = re.search(r"^operand +:= (.*?)^number", text, re.M | re.S)[1]
    known = {int(first, 16) for first in re.findall(r"\b(0[0-9])\b", grammar)}
    assert known == set(range(6))
    for first in range(256):
        entry = bytes([first]) + b"\x01x"
        if first in known:
            split(b"k", entry)
        else:
            with pytest.raises(MergeError, match="newer"):
                split(b"k", entry)


def test_numbers_and_sets_are_those_of_the_grammar():
    assert [number_from(text) for text in (b"0", b"-12", b"+007")] == [0, -12, 7]
    assert unpack_set(b"\x01a\x02aa") == {b"a", b"aa"}
