"""Small changes of Python code, one at a time: what `./dev mutate` tries on the tests.

`mutants` lists every change of a file that the operators below know, in the order of its lines.
Left alone are texts, annotations, decorators, what a raise says, and calls of `require`, which hold
in a right program. A mutant is named by its function and the text of the change, so a name outlives
moved lines; the same change again in the same function gets a number.

An implementation of our own, because the kernels are built in place and the plain twins share
their processes with them: mature tools copy the tree or import one module at a time.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TEXT_MAX = 96
"""A change is shown with as much of its statement as fits."""

_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    # The boundary, and the opposite.
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
INVARIANTS = {"require", "check"}
NAMES_LEFT = {"__all__", "__slots__"}


@dataclass(frozen=True, slots=True, eq=False)
class Mutant:
    """One change of one file."""

    path: Path
    line: int
    function: str
    """Qualified name of the outermost function it lies in, or nothing for the body of a module or
    class.
    """
    function_line: int
    kind: str
    name: str
    """The function and the text of the change; unique in its file."""
    _tree: ast.Module
    _place: _Place
    _new: ast.AST

    def code(self) -> types.CodeType:
        """Return the compiled module with this change."""
        old = self._place.get()
        self._place.put(_kept_in_sight(old) if isinstance(self._new, ast.Pass) else self._new)
        try:
            return compile(self._tree, str(self.path), "exec", dont_inherit=True)
        finally:
            self._place.put(old)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node hangs in its tree."""

    parent: ast.AST
    field: str
    index: int | None

    def get(self) -> ast.AST:
        value = getattr(self.parent, self.field)
        node: ast.AST = value if self.index is None else value[self.index]
        return node

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants(path: Path) -> list[Mutant]:
    """Return every mutant of a source file."""
    text = path.read_text(encoding="ascii")
    tree = ast.parse(text)
    lines = text.splitlines()
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for trail in _walk(tree, ()):
        place = trail[-1]
        node = place.get()
        line = getattr(node, "lineno", 0)
        if _is_unreachable(trail, lines):
            continue
        for kind, new in _changes(node, trail):
            ast.copy_location(new, node)
            ast.fix_missing_locations(new)
            # What stands before a function's body is evaluated outside of it.
            scopes = [
                step.parent
                for step in trail
                if isinstance(step.parent, _Scope)
                and not (_is_function(step.parent) and step.field == "args")
            ]
            outer = next((at for at, scope in enumerate(scopes) if _is_function(scope)), None)
            name = f"{_qualified(scopes)}: {_change_text(trail, new)}"
            seen[name] = seen.get(name, 0) + 1
            found.append(
                Mutant(
                    path=path,
                    line=line,
                    function="" if outer is None else _qualified(scopes[: outer + 1]),
                    function_line=0 if outer is None else _first_line(scopes[outer]),
                    kind=kind,
                    name=name if seen[name] == 1 else f"{name} (#{seen[name]})",
                    _tree=tree,
                    _place=place,
                    _new=new,
                )
            )
    return found


def _is_unreachable(trail: Sequence[_Place], lines: Sequence[str]) -> bool:
    """Return whether a node stands on a line that says so, or in what such a line leads to, which
    the coverage leaves out likewise.
    """
    fields = [step.field for step in trail[1:]] + ["body"]
    return any(
        field != "orelse" and "# unreachable: " in lines[getattr(step.get(), "lineno", 0) - 1]
        for step, field in zip(trail, fields, strict=True)
    )


def _kept_in_sight(node: ast.AST) -> ast.AST:
    """Return a statement as one that never runs. The function keeps the variables that it takes
    from around it, as `super()` takes the class: code that has others does not fit a function.
    """
    never = ast.If(ast.Constant(value=False), [node], [])  # type: ignore[list-item]  # a statement
    return ast.fix_missing_locations(ast.copy_location(never, node))


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _first_line(node: ast.AST) -> int:
    if not isinstance(node, _Scope):
        raise TypeError(f"{node} is no scope")
    return min([node.lineno, *(each.lineno for each in node.decorator_list)])


def _qualified(scopes: Sequence[ast.AST]) -> str:
    """Return the name that Python gives to code in these scopes."""
    name = ""
    for at, scope in enumerate(scopes):
        inside = at > 0 and _is_function(scopes[at - 1])
        own = getattr(scope, "name", "")
        name += f"{'.<locals>' if inside else ''}{'.' if at else ''}{own}"
    return name or "module"


def _walk(node: ast.AST, trail: tuple[_Place, ...]) -> Iterator[tuple[_Place, ...]]:
    """Yield the way to every node that may change, parents first."""
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "type_params", "type_comment"}:
            continue
        children = value if isinstance(value, list) else [value]
        for at, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue
            here = (*trail, _Place(node, field, at if isinstance(value, list) else None))
            yield here
            if not isinstance(child, ast.Raise):
                yield from _walk(child, here)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.expr_context):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # A docstring.
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id in NAMES_LEFT
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _is_type(node.left)
    return False


def _is_type(node: ast.AST) -> bool:
    """Return whether an operand of `|` is a type: a name that is one, or None."""
    if isinstance(node, ast.BinOp):
        return _is_type(node.left)
    if isinstance(node, ast.Constant):
        return node.value is None
    return isinstance(node, ast.Name) and node.id in {"bytes", "int", "str"}


def _changes(node: ast.AST, trail: tuple[_Place, ...]) -> Iterator[tuple[str, ast.AST]]:
    """Yield (kind, replacement) for a node."""
    if isinstance(node, ast.Compare):
        yield from _compared(node)
    elif isinstance(node, ast.BinOp):
        other = CALCULATED.get(type(node.op))
        if other is not None:
            yield "arithmetic", ast.BinOp(node.left, other(), node.right)
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", ast.BoolOp(swapped, node.values)
    elif isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield from _returned(node, trail)
    elif isinstance(node, ast.stmt):
        if _is_removable(node):
            yield "raise" if isinstance(node, ast.Raise) else "statement", ast.Pass()
        elif isinstance(node, ast.AugAssign):
            opposite = CALCULATED.get(type(node.op))
            if opposite is not None:
                yield "arithmetic", ast.AugAssign(node.target, opposite(), node.value)
            yield "statement", ast.Pass()
    if trail[-1].field == "test" and not isinstance(node, ast.Compare | ast.Constant):
        yield "negation", ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]  # a test is one


def _compared(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    for at, old in enumerate(node.ops):
        for new in COMPARED[type(old)]:
            operators = [*node.ops[:at], new(), *node.ops[at + 1 :]]
            yield "comparison", ast.Compare(node.left, operators, node.comparators)


def _constant(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield "constant", ast.Constant(node.value + 1)
    elif isinstance(node.value, bytes):
        yield "constant", ast.Constant(node.value + b"\x01")


def _returned(node: ast.Return, trail: tuple[_Place, ...]) -> Iterator[tuple[str, ast.AST]]:
    returns = [getattr(step.parent, "returns", None) for step in trail if _is_function(step.parent)]
    value = node.value
    if isinstance(value, ast.Constant):
        return
    is_bool = isinstance(returns[-1], ast.Name) and returns[-1].id == "bool"
    if is_bool and not isinstance(value, ast.Compare):
        yield "return", ast.Return(ast.UnaryOp(ast.Not(), value))  # type: ignore[arg-type]  # never None
    elif not is_bool:
        yield "return", ast.Return(ast.Constant(None))


def _is_removable(node: ast.stmt) -> bool:
    """Return whether the code without this statement may still run."""
    if isinstance(node, ast.Raise | ast.Continue | ast.Break | ast.Delete):
        return True
    if isinstance(node, ast.Expr):
        call = node.value
        named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        return not (named and call.func.id in INVARIANTS)  # type: ignore[attr-defined]  # see named
    if isinstance(node, ast.Assign):
        # Without the assignment of a plain name most code just stops with NameError.
        return not isinstance(node.targets[0], ast.Name)
    return False


def _change_text(trail: tuple[_Place, ...], new: ast.AST) -> str:
    """Return "before -> after", with as much of the statement around as fits."""
    old = trail[-1].get()
    before, after = ast.unparse(old), ast.unparse(new)
    for step in reversed(trail):
        around = step.get()
        if isinstance(around, _Scope) or (hasattr(around, "body") and isinstance(around, ast.stmt)):
            break
        if not isinstance(around, ast.stmt | ast.expr | ast.keyword):
            continue
        trail[-1].put(old)
        wider = ast.unparse(around)
        if len(wider) > TEXT_MAX and around is not old:
            break
        if around is old:
            continue
        trail[-1].put(new)
        before, after = wider, ast.unparse(around)
        trail[-1].put(old)
        if isinstance(around, ast.stmt):
            break
    if isinstance(new, ast.Pass):
        after = "removed"
    return " ".join(f"{before} -> {after}".split())
