"""The rules of the house that a machine can check: imports go down, files stay small, public names are as listed."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd
from edgekd import errors

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "edgekd"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of edgekd; everything may import the leaves.
LEAVES = {
    "errors", "types", "environment", "files", "graphs", "backends", "bundle", "model_set", "package_files",
    "text", "choices", "nvrtc", "__init__",
}  # fmt: skip
BELOW = {
    "ops": set(),
    "losses": {"ops"},
    "runtime": set(),
    "data": {"runtime"},
    "measure": {"data", "runtime"},
    "models": {"ops"},
    "deploy": {"measure", "data", "runtime", "models", "ops"},
    "train": {"losses", "ops", "models", "measure", "data", "runtime", "deploy"},
    "capi": {"runtime"},
    "integrations": {"runtime"},
    "__main__": {"cli"},
    "cli": {"deploy", "measure", "data", "runtime", "models", "train", "losses", "ops", "capi"},
}
MOST_SMALL_FILES = 8
MOST_VERB_LINES = 90
# What verbs share: reading words, printing, the command itself.
NO_VERBS = {"values.py", "console.py", "main.py", "__init__.py"}
HEAVY = {"torch", "ultralytics", "onnx", "onnxruntime", "transformers", "timm", "nncf", "torchvision"}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path: Path, everywhere: bool = True) -> set[str]:
    """Modules that a file imports, those under TYPE_CHECKING left out; without `everywhere` only at its top."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in nodes:
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    allowed = LEAVES | {room} | BELOW.get(room, {"runtime"})
    for name in imports_of(path):
        if name.startswith("edgekd."):
            target = name.split(".")[1]
            assert target in allowed or not (PACKAGE / target).exists(), f"{room} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small_and_documented(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None and node.end_lineno - node.lineno < 80, node.name


def test_the_runtime_needs_no_training_library() -> None:
    for path in FILES:
        if room_of(path) in ("runtime", "measure", "bundle", "types", "model_set", "environment", "errors", "cli"):
            top = {name.split(".")[0] for name in imports_of(path, everywhere=False)}
            assert not top & HEAVY, path


def test_tensorrt_lives_in_few_files() -> None:
    users = {path.name for path in FILES if {"tensorrt", "tensorrt_rtx"} & {n.split(".")[0] for n in imports_of(path)}}
    assert users <= {"tensorrt.py", "tensorrt_build.py", "tensorrt_versions.py", "tensorrt_library.py"}


def test_public_names_are_sorted_and_exist() -> None:
    assert edgekd.__all__ == sorted(edgekd.__all__)
    for name in edgekd.__all__:
        assert getattr(edgekd, name) is not None


def test_importing_edgekd_loads_nothing_heavy() -> None:
    code = "import sys, edgekd; assert not {'numpy', 'cv2', 'torch', 'openvino', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_path_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    paths = re.findall(r"`((?:edgekd|cuda_kernels|calibration|benchmarks|tests)/[\w./*-]*)`", text)
    assert paths
    for path in paths:
        assert list(ROOT.glob(path.rstrip("/"))), path


def test_no_python_in_the_data_folders() -> None:
    for folder in ("cuda_kernels", "calibration"):
        assert not list((ROOT / folder).rglob("*.py"))


def functions_of(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def test_files_are_of_a_size_to_read_at_once() -> None:
    sizes = {path: path.read_text().count("\n") for path in FILES if path.name != "__init__.py"}
    assert 90 <= statistics.median(sizes.values()) <= 200
    small = [path.name for path, n_lines in sizes.items() if n_lines < 40]
    assert len(small) <= MOST_SMALL_FILES, small
    lengths = [node.end_lineno - node.lineno + 1 for path in FILES for node in functions_of(path) if node.end_lineno]
    assert statistics.median(lengths) <= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_have_few_parameters(path: Path) -> None:
    if room_of(path) == "cli":  # a verb has one per option
        return
    for node in functions_of(path):
        if "triton.jit" in [ast.unparse(decorator) for decorator in node.decorator_list]:
            continue
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        assert len(set(names) - {"self", "cls"}) <= 6, node.name


def test_no_module_imports_itself_on_a_detour() -> None:
    modules = {"edgekd." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    imports = {name: imports_of(path) & set(modules) - {name} for name, path in modules.items()}
    # The methods of a result find their writers when they are called.
    imports["edgekd.types"] = imports_of(modules["edgekd.types"], everywhere=False) & set(modules)
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in finished:
            for other in sorted(imports[name]):
                visit(other, (*above, name))
            finished.add(name)

    for name in modules:
        visit(name, ())


def test_a_verb_is_parsing_one_call_and_printing() -> None:
    verbs = {path.name: path.read_text().count("\n") for path in (PACKAGE / "cli").glob("*.py")}
    long = {name for name, n_lines in verbs.items() if n_lines > MOST_VERB_LINES and name not in NO_VERBS}
    assert not long


def test_a_verb_names_what_it_hands_to_a_dataclass() -> None:
    for path in (PACKAGE / "cli").glob("*.py"):
        ours = {name.rpartition(".")[2] for name in imports_of(path) if name.startswith("edgekd.")}
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            name = node.func.id
            is_record = name in ours and name[0].isupper() and not name.endswith("Bar") and not hasattr(errors, name)
            assert not is_record, (path.name, name)


def test_the_command_line_repeats_no_list_of_choices() -> None:
    for path in (PACKAGE / "cli").glob("*.py"):
        assert "Literal[" not in path.read_text(), path.name
