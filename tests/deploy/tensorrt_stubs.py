"""Base classes for a functional stand-in, written from TensorRT's public headers: every virtual function refuses.

    python tests/deploy/tensorrt_stubs.py INCLUDE_FOLDER > stubs.h

A stand-in derives from `RuntimeStub` and its like and overrides what it needs. What it does not override ends the
program with the function's name, so that a call that nobody thought of is seen.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLASSES = ("VRuntime", "VCudaEngine", "VExecutionContext", "VRuntimeConfig")
_VIRTUAL = re.compile(
    r"(?:TRT_NODISCARD\s+)?virtual\s+([^;(]+?)\s*\b(\w+)\(([^;]*?)\)\s*(const)?\s*noexcept\s*=\s*0\s*;", re.DOTALL
)


def stubs(include: Path) -> str:
    """Return the text of the header for one version's include folder."""
    text = _without_comments((include / "NvInferImpl.h").read_text())
    parts = ["// Written from the public headers by tensorrt_stubs.py.", "#include <cstdio>", "#include <cstdlib>"]
    parts.append("namespace stubs { using namespace nvinfer1; using namespace nvinfer1::apiv;")
    parts.append(
        "[[noreturn]] inline void refuse(const char* name) {"
        ' std::fprintf(stderr, "not faked: %s\\n", name); std::abort(); }'
    )
    for name in CLASSES:
        body = re.search(rf"class {name} : public VRoot\s*{{(.*?)\n}};", text, re.DOTALL)
        if body:
            parts.append(_class(name, body.group(1)))
    return "\n".join([*parts, "}  // namespace stubs", ""])


def _class(name: str, body: str) -> str:
    lines = [f"class {name.removeprefix('V')}Stub : public {name} {{", "public:"]
    for result, function, arguments, const in _VIRTUAL.findall(body):
        types = " ".join(arguments.split())
        lines.append(
            f"    {' '.join(result.split())} {function}({types}) {const} noexcept override "
            f'{{ refuse("{name}::{function}"); }}'
        )
    return "\n".join([*lines, "};"])


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


if __name__ == "__main__":
    print(stubs(Path(sys.argv[1])))
