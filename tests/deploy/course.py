"""Ten thousand calls of a bundle of every kind on the stand-in for TensorRT, through Python and through C.

    EDGEKD_TENSORRT_INCLUDE=DIR python tests/deploy/course.py --library build/libedgekd.so [--parts 10.3.0/c]

Each part is one version of TensorRT's headers and one language: a chain and four clones of each kind, checked and
accounted by `run_stand_in.py`. Every finished kind is written to the result file at once, and the command goes on where
it was stopped. Needs the headers, the bindings and CUDA's headers (`fake_library.py`), and for C a built library.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for folder in ("../..", "..", "../runtime", ".", "../../benchmarks"):
    sys.path.insert(0, str((HERE / folder).resolve()))

import stand_in  # noqa: E402
import tiny_kinds  # noqa: E402
from result_file import result_path, write_result  # noqa: E402
from tensorrt_wheels import compile_stubs  # noqa: E402

N_CALLS = 10_000


def main() -> int:
    """Run what has not been run yet, and write the result after each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [f"{headers}/{language}" for headers in stand_in.BINDINGS for language in ("python", "c")]
    parser.add_argument("--parts", default=",".join(every), help=f"of {', '.join(every)}")
    parser.add_argument("--kinds", default=",".join(tiny_kinds.KINDS))
    parser.add_argument("--library", type=Path, help="libedgekd.so, for the parts in C")
    parser.add_argument("--calls", type=int, default=N_CALLS, help="of each bundle")
    parser.add_argument("-o", "--output", type=Path, default=None, help="the folder of the result file")
    options = parser.parse_args()
    folder = options.output or HERE.parents[1] / "benchmarks" / "results"
    path = result_path("stand_in", folder)
    done: dict[str, Any] = json.loads(path.read_text())["parts"] if path.is_file() else {}
    for part in options.parts.split(","):
        for kind in options.kinds.split(","):
            if done.get(part, {}).get(kind, {}).get("calls", 0) < options.calls:
                done.setdefault(part, {})[kind] = run(part, kind, options)
                content = {"settings": {"calls": options.calls, "clones": 4, "scenes": 4}, "parts": done}
                print(write_result("stand_in", content, folder), part, kind, done[part][kind], flush=True)
    return 0


def run(part: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Build one bundle with the stand-in and run it; returns what was counted."""
    headers, language = part.split("/")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        models = tiny_kinds.write_tiny_models(room / "models", kind)
        bundle = stand_in.built(models, room / "bundle", headers)
        if language == "c":
            job = stand_in.c_job(headers, options.library)
        else:
            job = stand_in.python_job(headers, compile_stubs(room / "stubs"), room)
        settings = {"confidence": stand_in.CONFIDENCE, "max_boxes": stand_in.MAX_BOXES}
        counted, _ = stand_in.run(job, {kind: bundle}, tiny_kinds.scenes(), room, n_calls=options.calls, **settings)
    found: dict[str, Any] = counted[kind]
    if kind == "sam":
        without = [stand_in.bytes_per_call(n_boxes) for n_boxes in stand_in.MAX_BOXES]
        more = [sum(a) - sum(b) for a, b in zip(found["copied_per_call"], without, strict=True)]
        found["copied_beside_inputs_and_outputs"] = more
    bindings = stand_in.BINDINGS[headers] if language == "python" else None
    return found | {"bindings": bindings, "seconds": round(time.perf_counter() - start, 1)}


if __name__ == "__main__":
    sys.exit(main())
