"""Tables of large pictures, streams, given boxes and turned boxes, for `render_tables.py`."""

from __future__ import annotations

from table_parts import machine_line, markdown, newest


def mosaic_table() -> str:
    """Average precision of a mosaic in tiles, beside the same pictures one by one."""
    result = newest("mosaic")
    if result is None:
        return "Not measured.\n"
    arms = {name: row for name, row in result["accuracy"].items() if isinstance(row, dict) and "box" in row}
    rows = [
        [name, f"{row['box']['ap']:.3f}", f"{row['mask']['ap']:.3f}" if "mask" in row else ""]
        for name, row in arms.items()
    ]
    found, settings = result["accuracy"]["seams"], result["settings"]
    note = (
        f"{machine_line(result)} {settings['side_px']} px in {result['accuracy']['n_tiles']} tiles; of "
        f"{found['n_seen_whole_and_found_in_a_tile']} objects that a tile sees whole and finds, "
        f"{found['n_of_these_lost']} are lost at the end, and {found['n_twice']} leave twice.\n"
    )
    return markdown(["way", "box AP", "mask AP"], rows) + "\n" + note


def mosaic_speed_table() -> str:
    """The boxes of one mosaic: edgekd and SAHI with the same detector and the same tiles, in turns."""
    result = newest("mosaic")
    if result is None or "speed" not in result:
        return "Not measured.\n"
    seconds, fastest = result["speed"]["seconds"], min(result["speed"]["seconds"].values())
    rows = [[arm, f"{value:.1f}", f"{value / fastest:.2f}"] for arm, value in seconds.items()]
    note = f"{machine_line(result)} {result['settings']['threads']} threads, {result['same_boxes']['n_tiles']} tiles.\n"
    return markdown(["arm", "seconds", "over the fastest"], rows) + "\n" + note


def stream_table() -> str:
    """A camera of 25 frames per second: which detector input keeps up."""
    result = newest("stream")
    if result is None:
        return "Not measured.\n"
    keys = ("age_p50_ms", "age_p95_ms", "results_per_second")
    rows = [
        [
            arm,
            *(f"{row[key]:.0f}" for key in keys),
            f"{row['n_dropped']} of {row['n_read']}",
            f"{row['mean_n_objects']:.1f}",
        ]
        for arm, row in result["keeps_up"].items()
    ]
    header = ["precision, detector input", "age p50 ms", "p95 ms", "results per second", "frames dropped", "objects"]
    settings = result["settings"]
    note = f" {settings['fps']} frames of 1280x720 per second, {settings['n_objects']} objects, tracked.\n"
    return markdown(header, rows) + "\n" + machine_line(result) + note


def reuse_table() -> str:
    """Masks of a stream that are taken again: their cost in IoU, and their gain in milliseconds."""
    result = newest("reuse")
    if result is None:
        return "Not measured.\n"
    rows = []
    for motion, arms in result["results"].items():
        for arm, row in arms.items():
            part, same = row.get("part_reused"), row.get("mean_iou_with_new_masks")
            cells = [f"{row['mean_iou_with_labels']:.4f}", "" if same is None else f"{same:.3f}"]
            cells += ["" if part is None else f"{100 * part:.0f} %", f"{row['processor_ms_per_frame']:.0f}"]
            rows.append([f"{motion}: {arm}", *cells])
    header = ["film: masks", "mIoU with labels", "with new masks", "taken again", "processor ms per frame"]
    settings = result["settings"]
    note = f" {settings['n_pictures']} films of {settings['n_frames']} frames, {settings['bundle']}.\n"
    return markdown(header, rows) + "\n" + machine_line(result) + note


def roundtrip_table() -> str:
    """Masks made of boxes against the polygons of the same objects."""
    result = newest("roundtrip_labels")
    if result is None:
        return "Not measured.\n"
    rows = []
    for split, quality in result["results"].items():
        sizes = [f"{quality['by_size'][size]:.3f}" for size in ("small", "medium", "large")]
        decided = [f"{row['n']} ({row['miou']:.3f})" if row["n"] else "0" for row in quality["by_decision"].values()]
        rows.append([f"{split}, {quality['n_objects']} objects", f"{quality['miou']:.3f}", *sizes, *decided])
    header = ["part", "mIoU", "small", "medium", "large", "taken (mIoU)", "shown (mIoU)", "dropped (mIoU)"]
    return markdown(header, rows) + "\n" + machine_line(result) + "\n"


def students_table() -> str:
    """Students of masks made of boxes, beside students of real polygons."""
    result = newest("roundtrip_students")
    if result is None:
        return "Not measured.\n"
    arms = {name: row for name, row in result["results"].items() if isinstance(row, dict)}
    rows = [
        [name, f"{row['mask_ap']:.3f}", f"{row['mask_ap50']:.3f}", f"{row['box_ap']:.3f}", str(row["n_objects"])]
        for name, row in arms.items()
    ]
    settings, kept = result["settings"], result["results"]["percent kept"]
    note = (
        f"{machine_line(result)} {kept:.0f} % of the mask AP is kept. {settings['n_pictures']['train']} pictures of "
        f"{settings['side_px']} px, {settings['epochs']} epochs from {settings['start']}, backbone frozen, one seed.\n"
    )
    return markdown(["learns from", "mask AP", "mask AP50", "box AP", "objects"], rows) + "\n" + note


def oriented_table() -> str:
    """A trained oriented network: average precision by who measures it, one picture alone and a large one in tiles."""
    result = newest("oriented")
    if result is None or "accuracy" not in result:
        return "Not measured.\n"
    accuracy = result["accuracy"]
    single = accuracy["boxes of one class per anchor, exact IoU"]
    measured = {
        "edgekd, OpenVINO bundle": accuracy["openvino"],
        "edgekd, ONNX Runtime bundle": accuracy["onnxruntime"],
        "pycocotools and shapely, the boxes of OpenVINO": accuracy["pycocotools and shapely, the boxes of openvino"],
        "one class per anchor: edgekd": single["edgekd"],
        "one class per anchor: Ultralytics' boxes": single["ultralytics"],
        "Ultralytics' own validation, ProbIoU": accuracy["Ultralytics' validation, ProbIoU"],
    }
    ways = {name: row for name, row in result.get("dota", {}).items() if isinstance(row, dict)}
    rows = [[name, f"{row['ap']:.3f}", f"{row['ap50']:.3f}"] for name, row in measured.items()]
    rows += [[f"large picture: {name}", f"{row['ap']:.3f}", f"{row['ap50']:.3f}"] for name, row in ways.items()]
    settings = result["settings"]
    note = f" {settings['schedule']['epochs']} epochs at {settings['input_px']} px, {settings['method']}.\n"
    return markdown(["turned boxes, who measures", "AP", "AP50"], rows) + "\n" + machine_line(result) + note


def intervals_table() -> str:
    """How often intervals of 95 % hold the truth, by the number of values."""
    result = newest("intervals")
    if result is None:
        return "Not measured.\n"
    expanded, plain = result["results"]["expanded"], result["results"]["plain"]
    rows = [
        [f"{count} {'runs' if kind == 'runs' else f'pictures, {kind}'}", f"{share:.3f}", f"{plain[kind][count]:.3f}"]
        for kind, shares in expanded.items()
        for count, share in shares.items()
    ]
    header = ["values", "hold the truth", "with plain percentiles"]
    return (
        markdown(header, rows)
        + f"\n{result['settings']['trials']} simulated trials per row; the standard error of a row is 0.015 to 0.03.\n"
    )
