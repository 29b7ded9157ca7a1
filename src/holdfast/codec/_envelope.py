"""The page envelope: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.codec._envelope_py import open_page, page_seed, seal_page
else:
    from holdfast.codec._envelope_c import open_page, page_seed, seal_page

__all__ = ["open_page", "page_seed", "seal_page"]
