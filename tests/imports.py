"""Which module imports which, read from the source without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "unstuck": ROOT / "kernel" / "unstuck",
    "unstuck_broker": ROOT / "broker" / "unstuck_broker",
    "unstuck_worker": ROOT / "worker" / "unstuck_worker",
}


@dataclass(frozen=True)
class Imports:
    """The names that one module imports, each as far as the source spells it."""

    at_start: frozenset[str]
    """When the module is imported."""
    lazily: frozenset[str]
    """When one of its functions runs."""
    for_types: frozenset[str]
    """Under TYPE_CHECKING: never."""

    @property
    def ever(self) -> frozenset[str]:
        """What a process that uses the module may load."""
        return self.at_start | self.lazily


class _Reader(ast.NodeVisitor):
    """Collects imports by when they happen."""

    def __init__(self, module: str, *, is_package: bool) -> None:
        self._package = module if is_package else module.rpartition(".")[0]
        self._now = "start"
        self.found: dict[str, set[str]] = {"start": set(), "lazily": set(), "types": set()}

    def _within(self, when: str, nodes: list[ast.stmt]) -> None:
        before, self._now = self._now, when if self._now == "start" else self._now
        for node in nodes:
            self.visit(node)
        self._now = before

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._within("lazily", node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        is_types = "TYPE_CHECKING" in ast.unparse(node.test)
        self._within("types" if is_types else self._now, node.body)
        self._within(self._now, node.orelse)

    def visit_Import(self, node: ast.Import) -> None:
        self.found[self._now] |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        parents = self._package.split(".")
        base = parents[: len(parents) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        # `from package import name`: the name may be a module, or something in the package.
        self.found[self._now] |= {source, *(f"{source}.{alias.name}" for alias in node.names)}

    def visit_Call(self, node: ast.Call) -> None:
        """Take ``import_module("name")`` for the import that it is."""
        named = ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__")
        if named and node.args and isinstance(name := node.args[0], ast.Constant):
            self.found[self._now].add(str(name.value))
        self.generic_visit(node)


def modules(package: str) -> dict[str, Path]:
    """List a package's modules by their dotted names."""
    folder = PACKAGES[package]
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ALL = {name: path for package in PACKAGES for name, path in modules(package).items()}


def read_imports(module: str) -> Imports:
    """Read one module of ours; names of our own are cut to the module that they are in."""
    reader = _Reader(module, is_package=ALL[module].name == "__init__.py")
    reader.visit(ast.parse(ALL[module].read_text(encoding="utf-8")))
    start, lazily, types = (
        frozenset(_cut(name) for name in names) - {module, "__future__"}
        for names in reader.found.values()
    )
    return Imports(start, lazily, types)


def _cut(name: str) -> str:
    """Cut a name inside one of our modules to the module."""
    if name.partition(".")[0] not in PACKAGES:
        return name
    while name not in ALL and "." in name:
        name = name.rpartition(".")[0]
    return name


def closure(module: str) -> set[str]:
    """List the modules of ours that are loaded when one is imported, itself among them."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or name not in ALL:
            continue
        seen.add(name)
        todo += read_imports(name).at_start
        todo.append(name.rpartition(".")[0])
    return seen


def roots(names: frozenset[str]) -> set[str]:
    """Cut names to their top-level packages."""
    return {name.partition(".")[0] for name in names}
