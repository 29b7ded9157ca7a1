"""Rule: the drawing at the top of base/errors.py is the tree of the classes below it."""

import re

import holdfast.base
from holdfast.base import errors
from tools.reference import drawing

ROW = re.compile(r"^(?P<lead>(?:\|   |    |\|-- |`-- )*)(?P<name>\w+)")


def drawn():
    """(class, parent) for every row of the drawing."""
    above = []
    rows = []
    for line in drawing().splitlines():
        row = ROW.match(line)
        depth = len(row["lead"]) // 4
        del above[depth:]
        rows.append((row["name"], above[-1] if above else "Exception"))
        above.append(row["name"])
    return rows


def kinds():
    return [kind for kind in vars(errors).values() if isinstance(kind, type)]


def test_the_drawing_equals_the_classes():
    real = [(kind.__name__, kind.__bases__[0].__name__) for kind in kinds()]
    assert sorted(drawn()) == sorted(real), "draw the classes as they are, in base/errors.py"


def test_every_error_leaves_base_and_says_what_it_means():
    for kind in kinds():
        assert kind.__name__ in holdfast.base.__all__, f"export {kind.__name__} from holdfast.base"
        assert kind.__doc__, f"say in the docstring of {kind.__name__} what its caller should do"
