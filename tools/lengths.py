"""Measure functions and files for the ratchet in tests/tidy/lengths.toml.

Run as a program it prints the table of today. A docstring does not count, its function's other
lines do.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tools import tree

FUNCTION_LINES = 70
FILE_LINES = 800
CYTHON_FUNCTION = re.compile(
    r"(?P<indent>\s*)(?:cdef|cpdef|def)\s+(?!class\b|enum\b|struct\b|extern\b)[^=(]*?\b(?P<name>\w+)\("
)


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (qualified name, lines) of each function of a Python file."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (child.end_lineno or child.lineno) - child.lineno + 1
                if ast.get_docstring(child, clean=False) is not None:
                    first = child.body[0]
                    count -= (first.end_lineno or first.lineno) - first.lineno + 1
                yield prefix + child.name, count
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    return walk(ast.parse(path.read_text(encoding="utf-8")), "")


def cython_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (name, lines) of each function of a Cython file, by indentation."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for start, line in enumerate(lines):
        found = CYTHON_FUNCTION.match(line)
        if not found:
            continue
        indent = len(found["indent"])
        last = start
        for number in range(start + 1, len(lines)):
            text = lines[number].strip()
            depth = len(lines[number]) - len(lines[number].lstrip())
            if text and depth <= indent and not text.startswith(")"):
                break
            if text:
                last = number
        body = "\n".join(lines[start : last + 1])
        docstring = re.search(r':\n\s*(""".*?""")', body, re.DOTALL)
        count = last - start + 1
        if docstring:
            count -= docstring[1].count("\n") + 1
        yield found["name"], count


def functions() -> dict[str, int]:
    """Return the lines of each function that is over the limit."""
    result = {}
    for path in [*tree.files(".py", ".pyx", under="src"), *tree.files(".py", under="tools")]:
        found = cython_functions(path) if path.suffix == ".pyx" else python_functions(path)
        for name, count in found:
            if count > FUNCTION_LINES:
                result[f"{tree.shown(path)}:{name}"] = count
    return result


def files() -> dict[str, int]:
    """Return the lines of each source file that is over the limit."""
    result = {}
    for path in tree.files(".py", ".pyx", ".pxd", ".h"):
        count = path.read_text(encoding="utf-8").count("\n")
        if count > FILE_LINES:
            result[tree.shown(path)] = count
    return result


def main() -> None:
    """Print the table."""
    for title, found in (("functions", functions()), ("files", files())):
        print(f"[{title}]")
        for name, count in sorted(found.items()):
            print(f'"{name}" = {count}')
        print()


if __name__ == "__main__":
    main()
