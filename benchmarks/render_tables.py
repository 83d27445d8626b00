"""Tables in documents are generated from result files, never typed.

    python benchmarks/render_tables.py [--check]

Every `<!-- table: NAME -->` ... `<!-- end -->` block of the documents is replaced by the table of the
newest result file of that name; `--check` changes nothing and exits 1 when a document is stale.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def newest(name: str) -> dict[str, Any] | None:
    """Return the newest result of a theme, by the month in its file name; None when nothing was measured."""
    paths = sorted(RESULTS.glob(f"{name}_*.json"), key=lambda path: path.stem.rsplit("_", 1)[-1])
    return json.loads(paths[-1].read_text()) if paths else None


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def machine_line(result: dict[str, Any]) -> str:
    """Name the machine and the libraries of a result in one line."""
    machine = result["machine"]
    wanted = ("openvino", "onnxruntime", "torch", "ultralytics")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in wanted if name in machine["versions"])
    isa = ", ".join(machine["isa"])
    return f"{machine['cpu']}, {machine['n_cores']} cores ({isa}), {versions}."


def chain_table() -> str:
    """The chain against Ultralytics, milliseconds a picture and ratios of one run."""
    result = newest("chain")
    if result is None:
        return "Not measured.\n"
    arms = list(result["results"]["bus"]["ratios"])
    rows = []
    for arm in arms:
        row = [arm.replace("detector:", "detector alone: ")]
        for key in ("bus", "nwpu"):
            part = result["results"][key]
            row += [f"{part['ms_per_picture'][arm]:.0f}", f"{part['ratios'][arm]:.1f}x"]
        rows.append(row)
    header = ["arm (precision, segmenter input)", "bus.jpg ms", "faster", "10 NWPU pictures, ms each", "faster"]
    return markdown(header, rows) + "\n" + machine_line(result) + " Detector input 640 px everywhere.\n"


def demo_table() -> str:
    """Stages of `edgekd demo` on its picture."""
    result = newest("demo")
    if result is None:
        return "Not measured.\n"
    rows = [
        [name.replace("_", " "), *(f"{stage[key]:.1f}" for key in ("p50_ms", "p90_ms", "p99_ms"))]
        for name, stage in result["stages"].items()
    ]
    boxes = result["settings"]["n_boxes"][0]
    precision = ", ".join(f"{name} {value}" for name, value in result["precision"].items())
    note = f"{machine_line(result)} {boxes} objects; {precision}; {result['stages']['total']['n']} runs.\n"
    return markdown(["stage", "p50 ms", "p90 ms", "p99 ms"], rows) + "\n" + note


def capi_table() -> str:
    """The C library against Python on the same bundle and pictures."""
    result = newest("capi")
    if result is None:
        return "Not measured.\n"
    parts = result["results"]
    names = ["total", *(name for name in parts["c_ms"] if name != "total")]
    rows = [
        [
            name.replace("_", " "),
            *(f"{parts[key][name]:.1f}" for key in ("python_ms", "c_ms")),
            f"{parts['python_over_c'][name]:.2f}",
        ]
        for name in names
    ]
    settings = result["settings"]
    note = f"{machine_line(result)} {settings['threads']} thread(s), load average {result['machine']['load_average']}; "
    return markdown(["stage", "Python ms", "C ms", "Python / C"], rows) + "\n" + note + settings["statistic"] + ".\n"


def distill_overhead_table() -> str:
    """A training step with each kind of teacher, relative to plain MSE features."""
    result = newest("distill_overhead")
    if result is None:
        return "Not measured.\n"
    rows = [
        [name.replace("_", " "), f"{result['step_ms'][name]:.0f}", f"{ratio:.3f}"]
        for name, ratio in result["over_mse"].items()
    ]
    return (
        markdown(["step", "ms", "over MSE"], rows) + "\n" + machine_line(result) + f" Settings: {result['settings']}.\n"
    )


def int8_table() -> str:
    """Accuracy of every network, target and way of finding ranges, beside float."""
    result = newest("int8")
    if result is None:
        return "Not measured.\n"
    rows = []
    for row in result["rows"]:
        for name, value in row["against_float"].items():
            known = f"{row['float'][name]:.4f}" if name in row["float"] else ""
            label = f"{row['stage']}, {row['target']} ({row['measured_with']}), {row['method']}"
            rows.append([label, str(row["n_int8_layers"]), name, known, f"{value:.3f}"])
    header = ["network, target, ranges", "INT8 layers", "metric", "float", "against float"]
    note = f"{machine_line(result)} {result['n_images']} pictures of {result['data']}; {result['against_float']}.\n"
    return markdown(header, rows) + "\n" + note


def haar_table() -> str:
    """The Haar kernels against a copy in the same run, as `bench_haar.py` writes it."""
    paths = sorted(RESULTS.glob("haar_*.md"))
    return paths[-1].read_text() if paths else "Not measured.\n"


TABLES = {
    "capi": capi_table,
    "chain": chain_table,
    "demo": demo_table,
    "distill_overhead": distill_overhead_table,
    "haar": haar_table,
    "int8": int8_table,
}


def render(text: str) -> str:
    """Return a document with every table block filled."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def main() -> None:
    """Rewrite the documents, or check them."""
    stale = []
    for path in DOCUMENTS:
        text = path.read_text()
        if render(text) != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(render(text))
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: tables are not those of the result files; run benchmarks/render_tables.py")


if __name__ == "__main__":
    main()
