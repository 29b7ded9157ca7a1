"""Rule: the generated reference pages are what the code generates today."""

import pytest

from tools import reference, tree


@pytest.mark.parametrize("path", reference.pages(), ids=lambda path: path.name)
def test_the_generated_page_is_up_to_date(path):
    assert path.is_file(), f"{tree.shown(path)} is missing; run ./dev docs and commit it"
    assert reference.pages()[path] == path.read_text(), "run ./dev docs and commit the page"
