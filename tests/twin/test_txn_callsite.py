"""Goal: both twins of the call site name the nearest line that is not of this package, and keep
it when the frame goes on.
"""

from __future__ import annotations

import _thread
import inspect
import sys
import threading
from types import ModuleType

import pytest

from holdfast.txn import _callsite_c, _callsite_py

MODULES = (_callsite_c, _callsite_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

OWN = """
def make(kind):
    return kind()

def deeper(kind):
    return [make(kind) for _ in range(1)][0]
"""


def functions(name: str) -> dict[str, object]:
    """Functions of a module of this name."""
    names: dict[str, object] = {"__name__": name}
    exec(compile(OWN, f"{name}.py", "exec"), names)
    return names


@twins
def test_it_is_the_line_of_the_call_whatever_runs_afterwards(twin: ModuleType) -> None:
    first = twin.CallSite()
    second = twin.CallSite()
    line = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    assert (__file__, line - 2) == (first.file, first.line)
    assert (__file__, line - 1) == (second.file, second.line)
    assert f"{__file__}:{line - 2}" == str(first)


@twins
def test_frames_of_the_package_are_passed_over(twin: ModuleType) -> None:
    for _ in range(2):
        # The second time their files are known.
        site = functions("holdfast.made_up")["deeper"](twin.CallSite)  # type: ignore[operator]
        line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
        assert (__file__, line) == (site.file, site.line)


@twins
def test_frames_with_a_name_like_it_are_not(twin: ModuleType) -> None:
    for name in ("holdfastened", "holdfast", "other"):
        site = functions(name)["deeper"](twin.CallSite)  # type: ignore[operator]
        assert (f"{name}.py", 3) == (site.file, site.line)


@twins
def test_a_module_without_a_name_is_the_users(twin: ModuleType) -> None:
    names = functions("nameless")
    del names["__name__"]
    assert "nameless.py:3" == str(names["make"](twin.CallSite))  # type: ignore[operator]


@twins
def test_where_all_frames_are_of_the_package_it_is_the_outermost(twin: ModuleType) -> None:
    """A thread that begins in the package ends its search in the standard library's frames."""
    found: list[object] = []
    make = functions("holdfast.made_up")["make"]
    thread = threading.Thread(target=lambda: found.append(make(twin.CallSite)))  # type: ignore[operator]
    thread.start()
    thread.join()
    assert [__file__] == [site.file for site in found]  # type: ignore[attr-defined]


@twins
@pytest.mark.parametrize("name", [None, 7, b"holdfast.made_up"])
def test_a_module_whose_name_is_no_text_is_the_users(twin: ModuleType, name: object) -> None:
    names = functions("strange")
    names["__name__"] = name
    assert "strange.py:3" == str(names["make"](twin.CallSite))  # type: ignore[operator]


@twins
def test_where_no_frame_is_of_anybody_else_it_is_the_outermost_of_the_package(
    twin: ModuleType,
) -> None:
    """A thread may begin in a function of the package, with no frame before it."""
    found: list[str] = []
    ended = threading.Event()
    names = functions("holdfast.made_up")
    source = """
def begin(make, kind, found, ended, trace):
    sys.settrace(trace)
    found.append(str(make(kind)))
    ended.set()
"""
    names["sys"] = sys
    exec(compile(source, "holdfast.begun.py", "exec"), names)
    # Such a thread is not traced by itself, as one that measures coverage would have it.
    arguments = (names["make"], twin.CallSite, found, ended, threading.gettrace())
    _thread.start_new_thread(names["begin"], arguments)  # type: ignore[arg-type]
    assert ended.wait(60)
    assert ["holdfast.begun.py:4"] == found
