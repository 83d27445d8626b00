"""How the measured ratios changed from commit to commit: one plot of every result file that git has kept.

    python benchmarks/history.py [-o benchmarks/results/history.png]

Each line is one ratio of one run on one machine, so that a slower machine does not look like slower code. A result that
is not committed has no point. Needs matplotlib, which the extra `train` brings, and a clone with its history.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from result_file import RESULTS

from edgekd.environment import Machine, device_slug


@dataclass(frozen=True)
class Ratio:
    """One number of a result: what it says, whose theme it belongs to, and how it is read there."""

    label: str
    theme: str
    read: Callable[[dict[str, Any]], float]


def haar(result: dict[str, Any], side_px: int) -> float:
    """Copies of the map that the loss and its gradient take, in C."""
    return next(
        float(row["ratio_to_limit"])
        for row in result["rows"]
        if row["name"] == "C function loss and gradient" and row["shape"][-1] == side_px
    )


def chain(result: dict[str, Any], arm: str) -> float:
    """Ultralytics' time for the ten pictures over that of an arm of ours."""
    return float(result["results"]["nwpu"]["ratios"][arm])


def masks(result: dict[str, Any], precision: str) -> float:
    """TinySAM's time for the masks of 20 boxes over the crop segmenter's, in the same precision."""
    ms = {kind: result["results"][f"{kind}_{precision}"]["segmenter_ms"]["20"]["min"] for kind in ("tinysam", "crop")}
    return float(ms["tinysam"] / ms["crop"])


RATIOS = (
    Ratio("chain, auto at 1024 px: Ultralytics / edgekd", "chain", lambda r: chain(r, "edgekd-auto-1024")),
    Ratio("chain, auto at 512 px: Ultralytics / edgekd", "chain", lambda r: chain(r, "edgekd-auto-512")),
    Ratio("20 masks: TinySAM / crop, fp32", "masks", lambda r: masks(r, "fp32")),
    Ratio("20 masks: TinySAM / crop, bf16", "masks", lambda r: masks(r, "bf16")),
    Ratio("detector: bf16 / int8", "int8_speed", lambda r: r["rows"][2]["speedup_over_bf16"]),
    Ratio("C library: Python / C, whole chain", "capi", lambda r: r["results"]["python_over_c"]["total"]),
    Ratio("Haar loss and gradient at 80x80: time / limit", "haar", lambda r: haar(r, 80)),
    Ratio("Haar loss and gradient at 20x20: time / limit", "haar", lambda r: haar(r, 20)),
)


def committed(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the date of the commit (YYYY-MM-DD HH:MM) and the result, oldest first."""
    date = "--date=format:%Y-%m-%d %H:%M"
    log = _git(path.parent, "log", "--reverse", "--diff-filter=AM", "--format=%h %ad", date, "--", path.name)
    for line in log.splitlines():
        commit, when = line.split(" ", 1)
        yield when, json.loads(_git(path.parent, "show", f"{commit}:./{path.name}"))


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout


def history(results: Path = RESULTS) -> dict[str, list[tuple[str, float]]]:
    """Return every ratio's points (when, value); results of an older form, which lack the number, have none."""
    found: dict[str, list[tuple[str, float]]] = {}
    for ratio in RATIOS:
        for path in sorted(results.glob(f"{ratio.theme}_*_2?????.json")):
            if path.stem.rsplit("_", 2)[0] != ratio.theme:
                continue
            for when, result in committed(path):
                try:
                    value = ratio.read(result)
                except (KeyError, StopIteration):
                    continue
                device = device_slug(Machine(**result["machine"]))
                found.setdefault(f"{ratio.label} ({device})", []).append((when, value))
    return found


def draw(found: dict[str, list[tuple[str, float]]], output: Path) -> None:
    """Draw the lines over the commits' dates, ratios on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    for label, points in found.items():
        dates = [matplotlib.dates.datestr2num(when) for when, _ in points]
        axes.plot(dates, [value for _, value in points], marker="o", label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set_ylabel("ratio within one run")
    axes.grid(alpha=0.3, which="both")
    figure.autofmt_xdate()
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(output, dpi=110)


def main() -> None:
    """Read what git kept, draw it, print the newest value of each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "history.png")
    output = parser.parse_args().output
    found = history()
    draw(found, output)
    for label, points in found.items():
        print(f"{points[-1][1]:8.2f}  {len(points)} results  {label}")
    print(output)


if __name__ == "__main__":
    main()
