"""Keys and values as text: what is printed can be typed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.cli.text import Form, parse, show, shown


@given(st.binary() | st.text().map(str.encode))
@example(b"-")
@example(b"@file")
@example(b"\\x41")
@example(b"\xed\xa0\x80")
@example("\u2028\ufeff\u0085 \u00e9".encode())
def test_what_is_shown_is_parsed_to_the_same_bytes(data):
    for form in (Form.TEXT, Form.HEX):
        text = shown(data, form)
        assert data == parse(text, form)
        assert text.isprintable()
        assert not text.startswith(("-", "@"))
        assert text.encode() == show(data, form)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain text", "plain text"),
        ("gr\u00fc\u00df".encode(), "gr\u00fc\u00df"),
        (b"a\tb\nc\rd", r"a\tb\nc\rd"),
        (b"\x00\xff\x7f", r"\x00\xff\x7f"),
        (b"\\n", r"\\n"),
        (b"-1", r"\-1"),
        (b"a-b@c", "a-b@c"),
        (b"", ""),
    ],
)
def test_the_text_form(data, text):
    assert text == shown(data)
    assert data == parse(text, Form.TEXT)


@pytest.mark.parametrize(
    ("argument", "form"),
    [
        ("\\", Form.TEXT),
        ("\\q", Form.TEXT),
        ("\\x4", Form.TEXT),
        ("\\xzz", Form.TEXT),
        ("4", Form.HEX),
        ("zz", Form.HEX),
    ],
)
def test_what_is_no_form_is_refused_with_a_sentence(argument, form):
    with pytest.raises(ValueError, match=r"escape|hexadecimal"):
        parse(argument, form)


def test_raw_bytes_stay_as_they_are():
    assert b"\\n@-" == parse("\\n@-", Form.RAW)
    assert b"\xff" == parse("\udcff", Form.RAW)
    assert b"\xff\n" == show(b"\xff\n", Form.RAW)


def test_bytes_of_the_command_line_that_are_not_utf8_are_taken_as_they_are():
    assert b"a\xffb" == parse("a\udcffb", Form.TEXT)
