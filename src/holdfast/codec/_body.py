"""Chooses the twin of the kernel of bodies."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.codec._body_py import body_room, release_bodies
else:
    from holdfast.codec._body_c import body_room, release_bodies

__all__ = ["body_room", "release_bodies"]
