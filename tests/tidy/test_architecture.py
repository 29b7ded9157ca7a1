"""Rule: ARCHITECTURE.md names every call site that syncs, and links every decision."""

import ast
import re

from tools import tree

SITE = re.compile(r"[a-z_]+(\.[a-z_]+)+")


def architecture():
    return (tree.ROOT / "ARCHITECTURE.md").read_text()


def section(title):
    return architecture().split(f"\n## {title}\n")[1].split("\n## ")[0]


def sources():
    """Modules of the package that sync files; env implements it, testing simulates it."""
    for path in tree.files(".py", under="src/holdfast"):
        if path.relative_to(tree.ROOT / "src" / "holdfast").parts[0] not in {"env", "testing"}:
            yield path, ast.parse(path.read_text())


def site_argument(node):
    """The argument that is the site of a call that syncs, or None for another node."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    name = {"sync": "site", "sync_dir": "site", "write_and_sync_at": "sync_site"}.get(
        node.func.attr
    )
    return next((word.value for word in node.keywords if word.arg == name), None)


def stems(module):
    """The defaults of parameters called `site`: what a site is built upon."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            every = node.args.posonlyargs + node.args.args
            given = every[len(every) - len(node.args.defaults) :]
            pairs = [*zip(given, node.args.defaults, strict=True)]
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            for parameter, default in pairs:
                if parameter.arg == "site" and isinstance(default, ast.Constant):
                    yield default.value


def handed_in():
    """Stems that are handed to a class or function as its `site`, by its name."""
    found = {}
    for _, module in sources():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                for word in node.keywords:
                    if word.arg == "site" and isinstance(word.value, ast.Constant):
                        found.setdefault(node.func.id, set()).add(word.value.value)
    return found


def defined(module):
    """The names of the classes and functions of a module."""
    kinds = ast.ClassDef | ast.FunctionDef
    return {node.name for node in ast.walk(module) if isinstance(node, kinds)}


def passed_on(module):
    """Sites that are handed to a function of the module, which hands them to the sync."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            words = [*node.args, *(word.value for word in node.keywords)]
            for word in words:
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    if SITE.fullmatch(word.value) and word.value.endswith("sync"):
                        yield word.value


def sites():
    """Every site at which the package syncs, and the places whose site cannot be told."""
    found, unclear = set(), []
    handed = handed_in()
    for path, module in sources():
        given = {stem for name in defined(module) for stem in handed.get(name, ())}
        for node in ast.walk(module):
            site = site_argument(node)
            if isinstance(site, ast.Constant):
                found.add(site.value)
            elif isinstance(site, ast.JoinedStr) and isinstance(site.values[-1], ast.Constant):
                every = given.union(stems(module))
                found.update(stem + site.values[-1].value for stem in every)
            elif isinstance(site, ast.Name):
                found.update(passed_on(module))
            elif site is not None:
                unclear.append(f"{tree.shown(path)}:{node.lineno}")
    return found, unclear


def test_the_table_of_syncs_names_the_sites_in_the_source():
    found, unclear = sites()
    assert not unclear, f"write the site as a string in the call: {', '.join(unclear)}"
    table = set(re.findall(r"^\| `([\w.]+)` \|", section("Where syncs happen"), re.MULTILINE))
    missing, gone = sorted(found - table), sorted(table - found)
    assert not missing, f"say in ARCHITECTURE.md what these syncs are for: {', '.join(missing)}"
    assert not gone, f"ARCHITECTURE.md names syncs that nobody calls: {', '.join(gone)}"
    assert all(site.endswith("sync") for site in found), "the name of a sync's site ends in 'sync'"


def test_every_decision_is_linked():
    missing = [
        path.name
        for path in tree.files(".md", under="docs/adr")
        if not path.name.startswith("0000") and f"docs/adr/{path.name})" not in section("Decisions")
    ]
    assert not missing, f"add to the table of decisions in ARCHITECTURE.md: {', '.join(missing)}"


def test_the_house_is_drawn_as_the_checks_have_it():
    """Every room of the package stands in the drawing, and none that does not exist."""
    drawing = section("The house").split("```")[1]
    rooms = {
        path.name
        for path in (tree.ROOT / "src" / "holdfast").iterdir()
        if (path / "__init__.py").is_file()
    }
    column = re.compile(r" *(?:\d+|side:) +((?:\w+(?: \| )?)+)")
    rows = [column.match(line) for line in drawing.split("\n")]
    drawn = {name for row in rows if row for name in row[1].split(" | ")}
    assert drawn == rooms
