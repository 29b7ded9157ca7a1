"""Rule: a kernel is a triple whose twins look the same from Python, and a suite runs over both."""

import ast
import importlib
import inspect
import re
import textwrap
import types

import pytest

from holdfast.base import KERNELS
from tools import tree

SOURCE = tree.ROOT / "src"
PROTOCOLS = {
    "__len__",
    "__iter__",
    "__next__",
    "__getitem__",
    "__contains__",
    "__enter__",
    "__exit__",
}


def on_disk():
    """The names of all triples, by any of their three files."""
    names = set()
    for path in tree.files(".pyx", ".py", under="src/holdfast"):
        found = re.fullmatch(r"(_\w+)_(c\.pyx|py\.py)", path.name)
        if found:
            names.add(".".join([*path.parent.relative_to(SOURCE).parts, found[1]]))
    return sorted(names)


def file_of(kernel, ending):
    return SOURCE.joinpath(*kernel.split(".")[:-1], kernel.split(".")[-1] + ending)


def test_the_list_of_kernels_equals_the_files():
    assert sorted(KERNELS) == on_disk(), "list every kernel triple in base/kernel.py, and no other"
    assert len(KERNELS) == len(set(KERNELS))


@pytest.mark.parametrize("kernel", on_disk())
def test_a_kernel_has_three_files_and_a_suite_over_both_twins(kernel):
    for ending in ("_c.pyx", "_py.py", ".py"):
        path = file_of(kernel, ending)
        assert path.is_file(), f"{tree.shown(path)} is missing: a kernel is a triple"
    _, room, name = kernel.split(".")
    suite = tree.ROOT / "tests" / "twin" / f"test_{room}{name}.py"
    assert suite.is_file(), f"{tree.shown(suite)} is missing: one suite runs over both twins"


COMPREHENSION = re.compile(r"\[\s*(?!\w+\s+for\b)(?:[^\[\]]|\[[^\[\]]*\])*?\sfor\s[^\[\]]*?\sin\s")
UNPACKING = re.compile(r"\[\s*\*[^\[\]]*,\s*[^*\s\]]")


def lists_that_are_not_safe(source):
    """The beginnings of lists whose elements Cython 3.3 releases twice when memory runs out."""
    plain = re.sub(r'"""(?s:.*?)"""|#.*|"[^"\n]*"', "", source)
    return [
        " ".join(found[0].split()) for rule in (COMPREHENSION, UNPACKING)
        for found in rule.finditer(plain)
    ]  # fmt: skip


def test_no_kernel_makes_a_list_whose_elements_may_be_released_twice():
    faults = [
        f"{tree.shown(path)}: {text}: make the list with append"
        for path in tree.files(".pyx", under="src/holdfast")
        for text in lists_that_are_not_safe(path.read_text())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("source", "is_safe"),
    [
        ("[each for each in sets if len(each)]", True),
        ("[each.name for each in sets]", False),
        ("[(start, stop)\n for (start, _), stop in items]", False),
        ("[NO_PAGE if body[0] is None else self._seal(body)\n for body in bodies]", False),
        ("found = [f(each) for each in sets]", False),
        ("[*tombstones, (start, stop)]", False),
        ("[*a, *b]", True),
        ("cdef unsigned char[8] a\nfor index in range(8): a[index] = 1", True),
        ("sum(len(each) for each in sets)", True),
    ],
)
def test_the_rule_knows_such_lists(source, is_safe):
    assert (not lists_that_are_not_safe(source)) == is_safe


def exported(kernel):
    """What the chooser takes: (names from the plain twin, names from the compiled one)."""
    names = {"_py": set(), "_c": set()}
    for node in ast.walk(ast.parse(file_of(kernel, ".py").read_text())):
        if isinstance(node, ast.ImportFrom):
            for ending, found in names.items():
                if node.module == kernel + ending:
                    found.update(entry.name for entry in node.names)
    return names["_py"], names["_c"]


@pytest.mark.parametrize("kernel", on_disk())
def test_the_chooser_takes_the_same_names_from_both(kernel):
    plain, compiled = exported(kernel)
    assert plain == compiled
    assert plain, f"{kernel} chooses nothing"


def assigned(kind, owner):
    """The public attributes that the methods of a class, and of its bases, set on `owner`."""
    names = set()
    for base in kind.__mro__[:-1]:
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue
        pattern = rf"\b{owner}\.([a-z]\w*)\s*(?::[^=\n]+)?=(?!=)"
        names.update(re.findall(pattern, source))
    return names


def public(kind):
    """The public names of a class, without those of a built-in type that a twin extends."""
    inherited = {
        name for base in kind.__mro__ if base.__module__ == "builtins" for name in vars(base)
    }
    return {name for name in dir(kind) if not name.startswith("_")} - inherited


def parameters(function):
    """(name, default) of each parameter."""
    return [(p.name, repr(p.default)) for p in inspect.signature(function).parameters.values()]


def constructor(kind):
    """Names of the parameters of construction; Cython writes them into the docstring."""
    found = re.match(rf"{kind.__name__}\((.*)\)", kind.__doc__ or "")
    if not found:
        return None
    words = [re.split(r"[=:]", part)[0].strip() for part in found[1].split(",")]
    return [word.split()[-1].lstrip("*") for word in words if word and word.strip("*/")]


@pytest.mark.parametrize("kernel", on_disk())
def test_the_twins_have_the_same_names_and_signatures(kernel):
    plain = importlib.import_module(kernel + "_py")
    compiled = importlib.import_module(kernel + "_c")
    faults = []
    for name in sorted(exported(kernel)[0]):
        one, other = getattr(plain, name), getattr(compiled, name)
        if isinstance(one, types.GenericAlias | types.UnionType):
            continue
        if inspect.isclass(one):
            faults += class_faults(name, one, other)
        elif callable(one) and parameters(one) != parameters(other):
            faults.append(f"{name}: {inspect.signature(one)} and {inspect.signature(other)}")
        elif not callable(one) and one != other:
            faults.append(f"{name}: {one!r} and {other!r}")
    assert not faults, f"{kernel}, plain and compiled:\n" + "\n".join(faults)


def class_faults(name, plain, compiled):
    faults = []
    ours, theirs = public(plain) | assigned(plain, "self"), public(compiled)
    # A class that builds its objects in __new__ sets attributes on another name than self.
    known = ours | assigned(plain, r"\w+") | set(inspect.get_annotations(plain))
    faults += [f"{name}.{missing}: only plain; rename it _{missing}" for missing in ours - theirs]
    faults += [f"{name}.{missing}: only compiled" for missing in theirs - known]
    faults += [
        f"{name}.{special}: only plain"
        for special in PROTOCOLS
        if special in vars(plain)
        if not hasattr(compiled, special)
    ]
    for method in sorted(public(plain) & theirs):
        one, other = getattr(plain, method), getattr(compiled, method)
        if inspect.isfunction(one) and parameters(one) != parameters(other):
            faults.append(f"{name}.{method}: {parameters(one)} and {parameters(other)}")
    built = constructor(compiled)
    if built is not None:
        expected = [entry for entry, _ in parameters(plain)]
        if built != expected:
            faults.append(f"{name}(): {expected} and {built}")
    return faults
