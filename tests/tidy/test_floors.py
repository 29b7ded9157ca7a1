"""Rule: imports go down the floors, and a room is imported from its package.

The table of floors is import-linter's, in pyproject.toml. import-linter checks Python files against
it (`./dev check`); this file checks the import and cimport lines of Cython files.
"""

import ast
import re
import tomllib
from pathlib import Path

from tools import kernels, tree

PACKAGE = tree.ROOT / "src" / "holdfast"


def floors():
    """The floor of each room, counted from below."""
    with open(tree.ROOT / "pyproject.toml", "rb") as file:
        (contract,) = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return {
        room: height
        for height, row in enumerate(reversed(contract["layers"]))
        for room in re.findall(r"\w+", row)
    }


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(importer, imported, table):
    """Whether a room may import another one."""
    return importer == imported or table[importer] > table[imported]


def test_the_table_lets_imports_go_down_only():
    table = floors()
    assert allowed("wal", "codec", table)
    assert allowed("engine", "txn", table)
    assert not allowed("codec", "wal", table)
    assert not allowed("txn", "lsm", table), "strangers share a floor"
    assert not allowed("engine", "testing", table)


def test_every_room_is_a_package_and_has_its_floor():
    table = floors()
    faults = []
    for path in sorted(PACKAGE.iterdir()):
        if path.is_dir() and any(path.glob("[a-z_]*.py*")) and path.name != "__pycache__":
            if path.name not in table:
                faults.append(f"{tree.shown(path)}: give the room a floor in pyproject.toml")
            if not (path / "__init__.py").is_file():
                faults.append(f"{tree.shown(path)}: add __init__.py, which lists what leaves it")
    assert not faults, "\n".join(faults)


def test_cython_files_import_downwards():
    table = floors()
    faults = []
    for path in tree.files(".pyx", ".pxd", under="src/holdfast"):
        for line, module in kernels.imports(path):
            parts = module.split(".")
            if parts[0] != "holdfast" or len(parts) == 1 or parts[1] not in table:
                continue
            if not allowed(room_of(path), parts[1], table):
                faults.append(
                    f"{tree.shown(path)}:{line}: {room_of(path)} may not import {parts[1]}; "
                    "pass what it needs as an argument, or declare a protocol on the lower floor"
                )
    assert not faults, "\n".join(faults)


def imported_modules(path):
    """(line, module) of every import of a Python file; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            for name in node.names:
                yield node.lineno, f"{node.module}.{name.name}"


def is_module(dotted):
    path = Path(tree.ROOT, "src", *dotted.split("."))
    return any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxd"))


def test_the_harnesses_are_named_by_their_verbs_only():
    """`testing` is found by its name where ADR 0017 says so; a linter does not see such imports."""
    faults = [
        f"{tree.shown(path)}: nothing imports holdfast.testing; ADR 0017 excepts two verbs"
        for path in tree.files(".py", ".pyx", under="src/holdfast")
        if room_of(path) != "testing"
        and path not in {PACKAGE / "cli" / "torture.py", PACKAGE / "cli" / "bench.py"}
        for node in ast.walk(ast.parse(path.read_text() if path.suffix == ".py" else ""))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.match(r"holdfast\.testing\b", node.value)
    ]
    assert not faults, "\n".join(faults)


def test_a_room_is_imported_from_its_package():
    """The modules of base are its face. A twin may name another room's twin, as kernels do."""
    faults = []
    for path in tree.files(".py", ".pyx", under="src/holdfast"):
        room = room_of(path)
        found = imported_modules(path) if path.suffix == ".py" else kernels.imports(path)
        for line, module in found:
            parts = module.split(".")
            if parts[0] != "holdfast" or len(parts) < 3 or not is_module(module):
                continue
            if parts[1] in {room, "base"} or room == "testing":
                continue
            if path.suffix == ".pyx" and not parts[2].endswith("_py"):
                continue
            if path.stem.endswith("_py") and parts[2].endswith("_py"):
                continue
            faults.append(
                f"{tree.shown(path)}:{line}: write 'from holdfast.{parts[1]} import ...' and let "
                f"the room's __init__ export it, instead of reaching into {module}"
            )
    assert not faults, "\n".join(sorted(set(faults)))
