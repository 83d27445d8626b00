"""Which TensorRT names the package uses, found in its syntax trees, and whether a TensorRT module has them.

An expression gets a TensorRT type from `trt` (the module), from a parameter, variable or field annotated with a name
that the file imports from `tensorrt`, from a constructor, or from a function of the file that returns one. An attribute
of a typed expression is a use; an attribute of something that came out of a TensorRT call without an annotation is a
gap, and the check reports it instead of guessing.

Run as a script, it imports the bindings of one wheel against stub libraries and prints what it found as JSON.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import edgekd

PACKAGE = Path(edgekd.__file__).parent
FILES = (
    PACKAGE / "deploy" / "tensorrt_versions.py",
    PACKAGE / "deploy" / "tensorrt_build.py",
    PACKAGE / "runtime" / "tensorrt_library.py",
    PACKAGE / "runtime" / "engines" / "tensorrt.py",
    PACKAGE / "runtime" / "engines" / "tensorrt_memory.py",
    PACKAGE / "runtime" / "engines" / "tensorrt_plan.py",
)
COMMON_BRANCHES = ("Plain", "ContextMemory")
"""The classes whose code the others inherit: what they use, every version must have."""


@dataclass(frozen=True)
class Type:
    """What an expression is: the module, a class or enumeration by dotted name, an instance of one, or unknown."""

    kind: str
    name: str = ""


MODULE = Type("module")
UNKNOWN = Type("unknown")


@dataclass(frozen=True)
class Use:
    """A dotted name below the TensorRT module, the branch class that uses it (None: all), and where."""

    name: str
    branch: str | None
    where: str


@dataclass
class Collector(ast.NodeVisitor):
    """Walks one file; `uses` and `gaps` are the result."""

    tree: ast.Module
    file: str
    uses: set[Use] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)
    branch: str | None = None
    branches: set[str] = field(default_factory=set)
    scope: dict[str, Type] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = list(ast.walk(self.tree))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "tensorrt"]
        self.types = {alias.name for node in imports for alias in node.names}
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        entries = [entry for node in classes for entry in node.body if isinstance(entry, ast.AnnAssign)]
        self.fields = {entry.target.id: self.annotated(entry.annotation) for entry in entries}
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.returns]
        self.returns = {node.name: self.annotated(node.returns) for node in functions}
        self.visit(self.tree)

    def annotated(self, annotation: ast.expr | None) -> Type | None:
        names = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)] if annotation else []
        return next((Type("instance", name) for name in names if name in self.types), None)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer = self.branch
        if any(isinstance(base, ast.Name) and base.id in (*COMMON_BRANCHES, *self.branches) for base in node.bases):
            self.branch = node.name
            self.branches.add(node.name)
        self.generic_visit(node)
        self.branch = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self.scope
        arguments = [*node.args.args, *node.args.kwonlyargs]
        typed = {argument.arg: self.annotated(argument.annotation) for argument in arguments}
        self.scope = outer | {name: type_ for name, type_ in typed.items() if type_}
        self.generic_visit(node)
        self.scope = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self.scope.pop(node.target.id, None)
            if type_ := self.annotated(node.annotation):
                self.scope[node.target.id] = type_

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        type_ = self.type_of(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name) and type_ and type_ is not MODULE:
                self.scope[target.id] = type_

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self.type_of(node.value)
        where = f"{self.file}:{node.lineno}"
        if owner is UNKNOWN:
            self.gaps.append(f"{where} {ast.unparse(node)}: annotate what it is an attribute of")
        elif owner:
            self.uses.add(Use(f"{owner.name}.{node.attr}".lstrip("."), self.branch, where))

    def type_of(self, node: ast.expr) -> Type | None:
        if isinstance(node, ast.Name):
            return MODULE if node.id == "trt" else self.scope.get(node.id)
        if isinstance(node, ast.Call):
            return self.type_of_call(node)
        if not isinstance(node, ast.Attribute):
            return None
        owner = self.type_of(node.value)
        if owner is None:
            return MODULE if node.attr == "api" else self.fields.get(node.attr)
        if owner.kind == "instance":
            return UNKNOWN
        return owner if owner is UNKNOWN else Type("class", f"{owner.name}.{node.attr}".lstrip("."))

    def type_of_call(self, node: ast.Call) -> Type | None:
        if isinstance(node.func, ast.Name) and node.func.id in self.returns:
            return self.returns[node.func.id]
        called = self.type_of(node.func)
        if called is None or called is UNKNOWN:
            return called
        is_constructor = called.kind == "class" and called.name.rpartition(".")[2][0].isupper()
        return Type("instance", called.name) if is_constructor else UNKNOWN


def collect(source: str, file: str = "source") -> Collector:
    """Return uses and gaps of one file."""
    return Collector(ast.parse(source), file)


def collect_package() -> tuple[set[Use], list[str]]:
    """Return uses and gaps of all files that touch TensorRT."""
    found = [collect(path.read_text(), str(path.relative_to(PACKAGE))) for path in FILES]
    return set().union(*(each.uses for each in found)), [gap for each in found for gap in each.gaps]


def missing_in(module: object, uses: set[Use], branches: set[str]) -> list[str]:
    """Return the uses that concern these branches and that the module does not have."""
    relevant = [use for use in uses if use.branch is None or use.branch in branches]
    return sorted(f"{use.where} trt.{use.name}" for use in relevant if not _has(module, use.name))


def _has(module: object, dotted: str) -> bool:
    for part in dotted.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True


def import_bindings(site: Path, package: str, stubs: list[Path]) -> ModuleType:
    """Import `tensorrt_bindings` or `tensorrt_rtx_bindings` from an unpacked wheel, under the name users import."""
    for stub in stubs:
        ctypes.CDLL(str(stub), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(site))
    module = importlib.import_module(package)
    sys.modules[package.removesuffix("_bindings")] = module
    return module


def report(site: Path, package: str, stubs: list[Path]) -> dict[str, object]:
    """Import one version and say which branch takes it, what it lacks, and what our first calls make of it."""
    module = import_bindings(site, package, stubs)
    from edgekd.deploy.tensorrt_build import _create_builder
    from edgekd.deploy.tensorrt_versions import branch_of
    from edgekd.errors import BackendUnavailable
    from edgekd.runtime.engines.tensorrt_memory import memory_of
    from edgekd.runtime.tensorrt_library import tensorrt_library

    branch, memory = type(branch_of(module)), type(memory_of(module))
    branches = {cls.__name__ for cls in (branch, *memory.__mro__)}
    uses, _ = collect_package()
    library = tensorrt_library(rtx=package.startswith("tensorrt_rtx"))
    library.logger.log(module.ILogger.Severity.ERROR, "a message\nin two lines.")
    try:
        _create_builder(library)
        refusal = ""
    except BackendUnavailable as error:
        refusal = str(error)
    return {
        "version": module.__version__,
        "branch": branch.__name__,
        "memory": memory.__name__,
        "checked": len([use for use in uses if use.branch is None or use.branch in branches]),
        "missing": missing_in(module, uses, branches),
        "last_error": library.last_error(),
        "builder": refusal,
    }


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]), sys.argv[2], [Path(stub) for stub in sys.argv[3:]])))
