"""Curves of a run: `results.csv` and `distillation.csv` go in, `curves.png` comes out."""

from __future__ import annotations

import csv
from pathlib import Path


def plot_run(folder: Path) -> Path:
    """Draw validation accuracy, losses and the gradient share of every term over the epochs.

    Args:
        folder: of a run; `distillation.csv` may be missing (no teacher).

    Returns:
        The picture written, `curves.png` in the same folder.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    results = _read(folder / "results.csv")
    terms = _read(folder / "distillation.csv")
    figure, (accuracy, losses, shares) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    epochs = [int(float(row["epoch"])) for row in results]
    for name in ("metrics/mAP50(B)", "metrics/mAP50-95(B)"):
        accuracy.plot(epochs, [float(row[name]) for row in results], label=name.split("/")[1])
    for name in [name for name in (results[0] if results else {}) if name.startswith("train/")]:
        losses.plot(epochs, [float(row[name]) for row in results], label=name.split("/")[1])
    for term in sorted({row["term"] for row in terms}):
        mine = [row for row in terms if row["term"] == term]
        shares.plot([int(row["epoch"]) for row in mine], [100 * float(row["share"]) for row in mine], label=term)
    for axis, title in ((accuracy, "validation"), (losses, "training losses"), (shares, "share of the gradient, %")):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    output = folder / "curves.png"
    figure.savefig(output, dpi=110)
    plt.close(figure)
    return output


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(file)]
