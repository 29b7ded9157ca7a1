"""Rule: only env knows the machine.

Ruff holds the table of banned names in pyproject.toml for Python files; this test holds it for
Cython files, and bans the built-in `open` everywhere outside env and testing, which ruff cannot.
"""

import ast
import re
import tomllib

from tools import kernels, tree

FREE = ("env", "testing")
C_LIBRARIES = ("libc.stdio", "libc.time", "posix", "cpython.pythread")
C_HEADERS = re.compile(r"""["']<?(stdio|unistd|fcntl|time|pthread|sys/\w+)\.h>?["']""")

EXCEPTIONS = {
    # A page is read, verified and decompressed in one section without the GIL; the descriptor is
    # the one that env's File.fileno() lends, and a file without one is read through File.read_at.
    "src/holdfast/sstable/_pread.pxd": {"posix.types", "posix.types.off_t", "unistd"},
}


def blank(docstring):
    """As many empty lines as a docstring has, so that line numbers stay."""
    return "\n" * docstring[0].count("\n")


def banned():
    with open(tree.ROOT / "pyproject.toml", "rb") as file:
        lint = tomllib.load(file)["tool"]["ruff"]["lint"]
    return {name: entry["msg"] for name, entry in lint["flake8-tidy-imports"]["banned-api"].items()}


def checked(*suffixes):
    for path in tree.files(*suffixes, under="src/holdfast"):
        if path.relative_to(tree.ROOT / "src" / "holdfast").parts[0] not in FREE:
            yield path


def test_cython_files_use_no_banned_module():
    table = banned()
    faults = []
    for path in checked(".pyx", ".pxd"):
        excepted = EXCEPTIONS.get(tree.shown(path), set())
        for line, module in kernels.imports(path):
            if module in excepted:
                continue
            if module in table:
                faults.append(f"{tree.shown(path)}:{line}: {module} is banned: {table[module]}")
            if any(module == name or module.startswith(f"{name}.") for name in C_LIBRARIES):
                faults.append(
                    f"{tree.shown(path)}:{line}: {module} reaches the machine; a kernel works on "
                    "memory, and a file is read through holdfast.env"
                )
        faults += [
            f"{tree.shown(path)}: {header}.h reaches the machine; a kernel works on memory"
            for header in C_HEADERS.findall(path.read_text())
            if header not in excepted
        ]
    assert not faults, "\n".join(faults)


def test_nobody_opens_a_file_but_env():
    faults = []
    message = "open() is banned: take an Env and use env.open(path) or env.create(path, site=...)"
    for path in checked(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id == "open":
                faults.append(f"{tree.shown(path)}:{node.lineno}: {message}")
    for path in checked(".pyx"):
        code = re.sub(r'""".*?"""', blank, path.read_text(), flags=re.DOTALL)
        for number, line in enumerate(code.splitlines(), 1):
            line = line.split("#")[0]
            if re.search(r"(?<![\w.])open\(", line) and not re.match(r"\s*c?p?def\s", line):
                faults.append(f"{tree.shown(path)}:{number}: {message}")
    assert not faults, "\n".join(faults)
