"""Tables in documents are generated from result files, never typed.

    python benchmarks/render_tables.py [--check]

Every `<!-- table: NAME -->` ... `<!-- end -->` block of the documents is replaced by the table of the
newest result file of that name; `--check` changes nothing and exits 1 when a document is stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from large_tables import (
    intervals_table,
    mosaic_speed_table,
    mosaic_table,
    oriented_table,
    reuse_table,
    roundtrip_table,
    stream_table,
    students_table,
)
from table_parts import RESULTS, machine_line, markdown, newest, newest_file, theme_of
from trust_tables import jobs_table, newcomer_table, pythons_table, root_table, start_table

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "docs" / "own-classes.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def chain_table() -> str:
    """The chain against Ultralytics, milliseconds per picture and ratios of one run."""
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
    base = result["step_ms"]["no_teacher"]
    rows = [
        [name.replace("_", " "), f"{ms:.0f}", f"{ms / base:.3f}", f"{result['over_mse'][name]:.3f}"]
        for name, ms in result["step_ms"].items()
    ]
    return (
        markdown(["step", "ms", "over no teacher", "over MSE"], rows)
        + "\n"
        + machine_line(result)
        + f" Settings: {result['settings']}.\n"
    )


def distill_table() -> str:
    """Students with and without a teacher: paired differences in points of mAP50-95."""
    result = newest("distill")
    if result is None:
        return "Not measured.\n"
    rows = []
    for name, arm in result["arms"].items():
        accuracy = " ".join(f"{100 * value:.1f}" for value in arm["map"])
        differences = [points(arm.get(f"map_minus_{other}")) for other in ("no_teacher", "mse")]
        epochs = "-".join(str(number) for number in sorted(set(arm["epochs"])))
        share = sum(arm["share_of_time"]) / len(arm["share_of_time"])
        seconds = sum(arm["processor_s"]) / len(arm["processor_s"])
        rows.append([name.replace("_", " "), accuracy, *differences, epochs, f"{100 * share:.0f} %", f"{seconds:.0f}"])
    settings = result["settings"]
    note = (
        f"{machine_line(result)} {result['student']} on {result['data']} at {settings['imgsz']} px, "
        f"batch {settings['batch']}, {settings['precision']}; accuracy after the last epoch; epochs follow from the "
        "cost of a step, so that all arms have the time of no teacher; in brackets the 95 % interval of the paired "
        "difference.\n"
    )
    header = [
        "arm",
        "mAP50-95 of each seed",
        "points over no teacher",
        "over MSE",
        "epochs",
        "of the time",
        "processor s",
    ]
    return markdown(header, rows) + "\n" + note


def points(difference: dict[str, Any] | None, factor: float = 100.0) -> str:
    """A paired difference with its interval, in points."""
    if difference is None:
        return ""
    mean = f"{factor * difference['mean']:+.2f}"
    interval = difference["interval_95"]
    return mean if interval is None else f"{mean} [{factor * interval[0]:+.2f}, {factor * interval[1]:+.2f}]"


def adapter_table() -> str:
    """Fine-tuning with and without the spectral adapter."""
    result = newest("adapter")
    if result is None:
        return "Not measured.\n"
    rows = []
    for prompt, arms in result["results"].items():
        seeds = [" ".join(f"{value:.3f}" for value in arms[arm]) for arm in ("before", "none", "adapter")]
        rows.append([prompt, *seeds, points(arms["adapter_minus_none"])])
    settings = result["settings"]
    note = (
        f"{machine_line(result)} mean IoU, a seed each; {settings['steps']} steps on {settings['n_train']} pictures of "
        f"{settings['data']}, rank {settings['rank']}; in brackets the 95 % interval of the paired difference.\n"
    )
    return markdown(["prompt", "before", "last blocks", "with adapter", "difference, points"], rows) + "\n" + note


def finetune_table() -> str:
    """The segmenter on the validation pictures, against what needs no training."""
    result = newest("finetune")
    if result is None:
        return "Not measured.\n"
    rows = []
    for name, quality in result["results"].items():
        sizes = [f"{quality['by_size'][size]:.3f}" for size in ("small", "medium", "large")]
        rows.append([name.replace("_", " "), f"{quality['miou']:.3f}", *sizes])
    n_objects = next(iter(result["results"].values()))["n_objects"]
    settings = result["settings"]
    note = (
        f"{machine_line(result)} {n_objects} objects in {settings['n_pictures']} validation pictures of NWPU VHR-10.\n"
    )
    return markdown(["prompt and longer side, or baseline", "mIoU", "small", "medium", "large"], rows) + "\n" + note


def int8_table() -> str:
    """Accuracy of every network, target and way of finding ranges, beside float."""
    themes = sorted({theme_of(path) for path in RESULTS.glob("int8_*.json")} - {"int8_speed"})
    results = [result for theme in themes if (result := newest(theme))]
    if not results:
        return "Not measured.\n"
    rows, notes = [], [machine_line(results[0])]
    for result in results:
        notes.append(
            f"{result['data']}: {result['n_images']} pictures, {result['n_calibration_pictures']} to calibrate."
        )
        for row in result["rows"]:
            label = f"{row['stage']} on {Path(result['data']).parent}, {row['target']} ({row['measured_with']})"
            for name, value in row["against_float"].items():
                known = f"{row['float'][name]:.4f}" if name in row["float"] else ""
                rows.append([label, row["method"], str(row["n_int8_layers"]), name, known, f"{value:.3f}"])
    header = ["network and target", "ranges", "INT8 layers", "metric", "float", "against float"]
    return markdown(header, rows) + "\n" + " ".join(notes) + f" {results[0]['against_float']}.\n"


def saturation_table() -> str:
    """What 8 and 7 bits of weights cost where sums of two 8-bit products saturate."""
    result = newest("saturation")
    if result is None:
        return "Not measured.\n"
    rows = [
        [row["backend"], str(row["weight_bits"]), f"{row['float']:.4f}", f"{row['points_lost']:.2f}"]
        for row in result["rows"]
    ]
    note = (
        f"{machine_line(result)} {result['data']}: {result['n_images']} pictures, "
        f"{result['n_calibration_pictures']} to calibrate; ranges by {result['method']}.\n"
    )
    return markdown(["library", "bits of weights", "box AP in float", "points lost"], rows) + "\n" + note


def int8_speed_table() -> str:
    """OpenVINO in three precisions, in turns."""
    result = newest("int8_speed")
    if result is None:
        return "Not measured.\n"
    rows = [
        [
            f"{row['stage']}, {row['precision']}",
            *(str(row.get(name, "")) for name in ("min_ms", "speedup_over_fp32", "speedup_over_bf16")),
        ]
        for row in result["rows"]
    ]
    note = f"{machine_line(result)} {result['threads']} threads, {result['statistic']} of {result['runs']}.\n"
    return markdown(["network", "ms", "over fp32", "over bf16"], rows) + "\n" + note


def haar_table() -> str:
    """The Haar kernels against a copy in the same run, as `bench_haar.py` writes it."""
    path = newest_file("haar")
    return path.with_suffix(".md").read_text() if path else "Not measured.\n"


def masks_table() -> str:
    """The ways to a mask: accuracy on the validation pictures, time from boxes to masks."""
    result = newest("masks")
    if result is None:
        return "Not measured.\n"
    rows = []
    for name, row in result["results"].items():
        mask, given = row.get("mask", {}), row.get("gt_box_mask", {})
        accuracy = [mask.get("ap"), mask.get("ap_small"), given.get("miou"), given.get("miou_small")]
        times = [row.get("segmenter_ms", {}).get(n, {}).get("min") for n in ("1", "5", "20", "100")]
        cells = ["" if value is None else f"{value:.3f}" for value in accuracy]
        cells += ["" if value is None else f"{value:.1f}" for value in times]
        rows.append([name.replace("_", " "), *cells, f"{row['segmenter_mb']:.1f}" if "segmenter_mb" in row else ""])
    header = ["way", "mask AP", "small", "mIoU, labelled boxes", "small", "1 box ms", "5", "20", "100", "MB"]
    settings = result["settings"]
    note = f"{machine_line(result)} {settings['n_pictures']} pictures, {settings['n_objects']} objects; "
    return markdown(header, rows) + "\n" + note + f"{settings['threads']} threads; {settings['time']}.\n"


def crop_table() -> str:
    """The crop segmenter trained from nothing, a row per seed."""
    result = newest("crop")
    if result is None:
        return "Not measured.\n"
    keys = ("miou", "small", "medium", "large", "airplane")
    rows = [
        [f"seed {seed}", *(f"{run[key]:.4f}" for key in keys), f"{run['cpu_s'] / 60:.0f}"]
        for seed, run in result["results"]["seeds"].items()
    ]
    header = ["run", "mIoU", "small", "medium", "large", "airplane", "processor minutes"]
    settings = result["settings"]
    note = f"{machine_line(result)} Size {settings['size']}, {settings['steps']} steps of {settings['batch']} crops, "
    return markdown(header, rows) + "\n" + note + f"{settings['threads']} thread(s); boxes: {settings['boxes']}.\n"


TABLES = {
    "adapter": adapter_table,
    "capi": capi_table,
    "chain": chain_table,
    "crop": crop_table,
    "demo": demo_table,
    "distill": distill_table,
    "distill_overhead": distill_overhead_table,
    "finetune": finetune_table,
    "haar": haar_table,
    "int8": int8_table,
    "int8_speed": int8_speed_table,
    "saturation": saturation_table,
    "jobs": jobs_table,
    "masks": masks_table,
    "mosaic": mosaic_table,
    "mosaic_speed": mosaic_speed_table,
    "newcomer": newcomer_table,
    "pythons": pythons_table,
    "reuse": reuse_table,
    "root": root_table,
    "roundtrip": roundtrip_table,
    "students": students_table,
    "oriented": oriented_table,
    "intervals": intervals_table,
    "start": start_table,
    "stream": stream_table,
}


def render(text: str) -> str:
    """Return a document with every table block filled."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def main() -> None:
    """Rewrite the documents, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a document is stale")
    only_check = parser.parse_args().check
    stale = []
    for path in DOCUMENTS:
        text = path.read_text()
        if render(text) != text:
            stale.append(path.name)
            if not only_check:
                path.write_text(render(text))
    if stale and only_check:
        sys.exit(f"{', '.join(stale)}: tables are not those of the result files; run benchmarks/render_tables.py")


if __name__ == "__main__":
    main()
