"""Tables of what a user waits for: a newcomer's path, a wheel in an empty system, pictures at the same time."""

from __future__ import annotations

from typing import Any

from table_parts import machine_line, markdown, newest


def newcomer_table() -> str:
    """The steps of docs/own-classes.md with their times."""
    result = newest("newcomer")
    if result is None:
        return "Not measured.\n"
    rows = [[name, f"{step['wall_s'] / 60:.1f}"] for name, step in result["steps"].items()]
    rows.append(["all", f"{result['total_s'] / 60:.1f}"])
    note = f"{machine_line(result)} {result['settings']['n_pictures']} labelled pictures of NWPU VHR-10.\n"
    return markdown(["step", "minutes"], rows) + "\n" + note


def root_table() -> str:
    """The wheel in an empty system of x86-64 and of 64-bit Arm: what was found, and how long it took."""
    results = [result for machine in ("x86_64", "aarch64") if (result := newest(f"root_{machine}"))]
    if not results:
        return "Not measured.\n"
    rows = []
    for result in results:
        seconds = [result["steps"].get(name) for name in ("install", "demo crop", "demo sam")]
        cells = ["" if step is None else f"{step['processor_s']:.0f}" for step in seconds]
        objects = ", ".join(f"{kind} {len(found)}" for kind, found in result["objects"].items())
        machine = "64-bit Arm under QEMU" if result["machine_of_wheel"] == "aarch64" else "x86-64"
        rows.append([f"{machine}, {result['system']}", *cells, objects, f"{result['installed_mb']}"])
    header = ["system", "install, processor s", "demo crop", "demo sam", "objects found", "installed MB"]
    note = (
        f"{machine_line(results[0])} Seconds under QEMU are an upper bound and no estimate of a device; "
        f"compare them as a ratio only.{_differences(results)}\n"
    )
    return markdown(header, rows) + "\n" + note


def _differences(results: list[dict[str, Any]]) -> str:
    """How far the boxes of the second system are from those of the first, each paired with the nearest."""
    if len(results) < 2:
        return ""
    words = []
    for kind in sorted(results[0]["objects"].keys() & results[1]["objects"].keys()):
        first, second = (result["objects"][kind] for result in results)
        nearest = [min(range(len(second)), key=lambda index, one=one: _moved_px(one, second[index])) for one in first]
        moved = max(_moved_px(one, second[index]) for one, index in zip(first, nearest, strict=True))
        same = all(one[0] == second[index][0] for one, index in zip(first, nearest, strict=True))
        if not len(set(nearest)) == len(first) == len(second):
            return f" {kind}: the two systems found other objects."
        words.append(f" {kind}: {'the same' if same else 'other'} classes, boxes differ by at most {moved:.2f} px.")
    return "".join(words)


def _moved_px(one: list[Any], two: list[Any]) -> float:
    """The largest difference of two objects' box edges."""
    return float(max(abs(a - b) for a, b in zip(one[2:], two[2:], strict=True)))


def jobs_table() -> str:
    """Pictures per second with several pictures at a time."""
    result = newest("jobs")
    if result is None:
        return "Not measured.\n"
    rows = [
        [f"--jobs {arm['jobs']} --threads {arm['threads']}", f"{arm['pictures_per_s']:.2f}"] for arm in result["arms"]
    ]
    settings = result["settings"]
    note = (
        f"{machine_line(result)} {settings['n_pictures']} pictures, {result['n_objects']} objects, the same from every "
        f"arm; {settings['statistic']} of {settings['rounds']}.\n"
    )
    return markdown(["edgekd run", "pictures per second"], rows) + "\n" + note


def start_table() -> str:
    """A start with and without compiled networks that were kept."""
    result = newest("start")
    if result is None:
        return "Not measured.\n"
    names = {"compiled": "EDGEKD_MODEL_CACHE=off", "first": "first start, which keeps them", "kept": "later starts"}
    rows = [
        [kind, words, *(f"{found[name][part]:.2f}" for part in ("open_s", "first_result_s", "whole_s"))]
        for kind, found in result["kinds"].items()
        for name, words in names.items()
    ]
    sizes = ", ".join(
        f"{kind} {found['n_networks']} networks, {found['kept_bytes'] / 1e6:.0f} MB"
        for kind, found in result["kinds"].items()
    )
    settings = result["settings"]
    note = (
        f"{machine_line(result)} {settings['threads']} threads, {settings['precision']}, {settings['statistic']} of "
        f"{settings['rounds']} processes (of 1: the first start). Kept: {sizes}. The same numbers from every start.\n"
    )
    return markdown(["kind", "start", "open, s", "first result, s", "both, s"], rows) + "\n" + note


def pythons_table() -> str:
    """The tests that need no torch, on each Python."""
    result = newest("pythons")
    if result is None:
        return "Not measured.\n"
    rows = []
    for version, each in sorted(result["pythons"].items(), key=lambda item: tuple(map(int, item[0].split(".")))):
        n_failed = each["failures"] + each["errors"]
        numbers = (each["tests"] - n_failed - each["skipped"], each["skipped"], n_failed, each["seconds"])
        rows.append([version, *map(str, numbers), each["versions"]["numpy"], each["versions"]["openvino"]])
    header = ["Python", "passed", "skipped", "failed", "seconds", "numpy", "openvino"]
    return (
        markdown(header, rows) + "\n" + machine_line(result) + " Versions in the rows are those of each environment.\n"
    )
