"""The arms of `bench_distill.py` as one picture: a dot per seed, a line at each mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_arms(arms: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw mAP50-95 of every seed of every arm into a PNG; seeds keep their colour, since they are paired."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(arms) + 1.5), layout="constrained")
    colours = pyplot.get_cmap("tab10")
    for row, arm in enumerate(arms.values()):
        values = [100 * value for value in arm["map"]]
        axes.scatter(values, [row] * len(values), c=[colours(seed % 10) for seed in arm["seeds"]], s=22, zorder=3)
        if values:
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color="black", linewidth=1)
    axes.set_yticks(range(len(arms)), [name.replace("_", " ") for name in arms])
    axes.invert_yaxis()
    axes.grid(axis="x", linewidth=0.5)
    axes.set_xlabel("mAP50-95 after the last epoch, percent; all arms in equal time")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
