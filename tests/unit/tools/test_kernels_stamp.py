"""The build tool: what a kernel depends on, and when it is built anew."""

import pytest

from tools import kernels

FILES = {
    "setup.py": "",
    "src/holdfast/codec/_sum_c.pyx": "from libc.stdint cimport uint64_t\n",
    "src/holdfast/codec/_sum_c.pxd": "from holdfast.codec._words cimport load\n",
    "src/holdfast/codec/_words.pxd": 'cdef extern from "words.h":\n    int load(int)\n',
    "src/holdfast/codec/words.h": "int load(int);\n",
    "src/holdfast/wal/_scan_c.pyx": (
        "from holdfast.codec._sum_c cimport (\n    total,\n    part as piece,\n)\nimport struct\n"
    ),
    "src/holdfast/sstable/_page_c.pyx": "cimport cython\n",
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    monkeypatch.setattr(kernels, "SOURCE", tmp_path / "src")
    return tmp_path


def stamps(tree, profile="release"):
    return {
        path.stem: kernels.stamp(path, profile) for path in sorted(tree.glob("src/**/_*_c.pyx"))
    }


def changed(tree, name):
    """The kernels whose stamp changes with one more line in a file."""
    before = stamps(tree)
    path = tree / name
    path.write_text(path.read_text() + "\n# more\n")
    after = stamps(tree)
    return {stem for stem in before if before[stem] != after[stem]}


def test_imports_are_read_line_by_line_and_through_parentheses(tree):
    path = tree / "src/holdfast/wal/_scan_c.pyx"
    assert list(kernels.imports(path)) == [
        (1, "holdfast.codec._sum_c"),
        (1, "holdfast.codec._sum_c.total"),
        (1, "holdfast.codec._sum_c.part"),
        (5, "struct"),
    ]
    assert {module for _, module in kernels.imports(path, cimports_only=True)} == {
        "holdfast.codec._sum_c",
        "holdfast.codec._sum_c.total",
        "holdfast.codec._sum_c.part",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("src/holdfast/wal/_scan_c.pyx", {"_scan_c"}),
        ("src/holdfast/codec/_sum_c.pyx", {"_sum_c"}),
        ("src/holdfast/codec/_sum_c.pxd", {"_sum_c", "_scan_c"}),
        ("src/holdfast/codec/_words.pxd", {"_sum_c", "_scan_c"}),
        ("src/holdfast/codec/words.h", {"_sum_c", "_scan_c"}),
        ("setup.py", {"_sum_c", "_scan_c", "_page_c"}),
    ],
)
def test_a_changed_file_makes_stale_what_reaches_it_and_nothing_else(tree, name, expected):
    assert changed(tree, name) == expected


def test_another_profile_or_compiler_is_another_build(tree, monkeypatch):
    before = stamps(tree)
    assert not set(stamps(tree, "debug").values()) & set(before.values())
    monkeypatch.setenv("CC", "another")
    assert not set(stamps(tree).values()) & set(before.values())


def test_a_library_that_somebody_else_replaced_is_stale(tree):
    path = tree / "src/holdfast/wal/_scan_c.pyx"
    assert not kernels.is_current(path, "release")
    kernels.built_file(path).write_bytes(b"built")
    time = kernels.built_file(path).stat().st_mtime_ns
    kernels.stamp_file(path).parent.mkdir(parents=True)
    kernels.stamp_file(path).write_text(f"{kernels.stamp(path, 'release')} {time}\n")
    assert kernels.is_current(path, "release")
    assert not kernels.is_current(path, "debug")
    kernels.built_file(path).write_bytes(b"replaced")
    assert not kernels.is_current(path, "release")


def test_a_library_without_a_source_is_removed(tree):
    orphan = tree / f"src/holdfast/wal/_gone_c{kernels.SUFFIX}"
    kept = tree / f"src/holdfast/wal/_scan_c{kernels.SUFFIX}"
    for path in (orphan, kept):
        path.write_bytes(b"built")
    kernels.remove_orphans("release")
    assert not orphan.exists()
    assert kept.exists()


def test_an_unknown_room_is_an_error(tree, capsys):
    assert kernels.main(["release", "nosuch"]) == 1
    assert "no kernels in nosuch" in capsys.readouterr().err
