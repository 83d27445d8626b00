"""What a DS2D2 step costs over the same step with plain MSE feature distillation, and over no teacher at all.

    python benchmarks/bench_distill_overhead.py --imgsz 256 --rounds 8

A step is forward, losses, backward and optimizer of YOLO11n with a YOLO11n teacher, both with random weights: time
does not depend on them. The arms are interleaved and the minimum of each is kept, of processor time where the device is
a processor, so that other work on the machine cancels out of the ratios. Before any time is shown, the explicit loss
with W = 1 and w_high = 3 w_low is compared with the plain MSE that it must equal, and the losses with a cached teacher
with those of the same teacher without a cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from result_file import write_result

ARMS = {
    "no_teacher": ("none", {}),
    "mse": ("feature", {"distance": "mse", "lambda_attention": 0.0, "lambda_logits": 0.0}),
    "ds2d2_explicit": ("ds2d2", {"lambda_full": 0.0}),
    "ds2d2_explicit_unweighted": ("ds2d2", {"lambda_full": 0.0, "is_cell_weighted": False}),
    "ds2d2_both_streams": ("ds2d2", {}),
    "mse_cached": ("feature", {"distance": "mse", "lambda_attention": 0.0, "lambda_logits": 0.0}),
    "ds2d2_explicit_cached": ("ds2d2", {"lambda_full": 0.0}),
}
CACHED = "_cached"
"""Arms whose teacher is read from a warm `FeatureCache`; hashing the pictures is part of their step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()

    torch.manual_seed(0)
    batch = make_batch(options.batch, options.imgsz, options.device)
    steps = {arm: Step(arm, batch, options.device) for arm in ARMS}
    difference, from_cache = compare_with_mse(steps, batch), compare_cached(steps)
    for step in steps.values():
        step.run()
    seconds = {arm: float("inf") for arm in ARMS}
    for _ in range(options.rounds):
        for arm, step in steps.items():
            seconds[arm] = min(seconds[arm], step.run())

    result = {
        "settings": {"imgsz": options.imgsz, "batch": options.batch, "rounds": options.rounds, "precision": "fp32"},
        "threads": torch.get_num_threads(),
        "largest_relative_difference_from_mse": difference,
        "largest_relative_difference_of_cached_losses": from_cache,
        "step_ms": {arm: round(1e3 * value, 1) for arm, value in seconds.items()},
        "over_mse": {arm: round(value / seconds["mse"], 3) for arm, value in seconds.items()},
        "over_no_teacher": {arm: round(value / seconds["no_teacher"], 3) for arm, value in seconds.items()},
    }
    print(json.dumps(result, indent=1))
    write_result("distill_overhead", result, options.output)


def make_batch(n_pictures: int, imgsz: int, device: str) -> dict[str, torch.Tensor]:
    """Noise with ten objects per picture."""
    n_objects = 10 * n_pictures
    centre, size = 0.2 + 0.6 * torch.rand(n_objects, 2), 0.05 + 0.1 * torch.rand(n_objects, 2)
    return {
        "img": torch.rand(n_pictures, 3, imgsz, imgsz, device=device),
        "bboxes": torch.cat((centre, size), 1).to(device),
        "cls": torch.randint(0, 10, (n_objects, 1), device=device).float(),
        "batch_idx": torch.arange(n_pictures, device=device).repeat_interleave(10).float(),
    }


class Step:
    """One arm: a student, its optimizer and its losses, ready to take a step on one batch."""

    def __init__(self, arm: str, batch: dict[str, torch.Tensor], device: str) -> None:
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel

        from edgekd.models.levels import find_levels
        from edgekd.train.distill.balance import GradientBalance
        from edgekd.train.distill.feature_cache import FeatureCache
        from edgekd.train.distill.objective import Objective
        from edgekd.train.distill.recipes import Recipe
        from edgekd.train.distill.student import DistilledDetector

        method, changes = ARMS[arm]
        recipe = Recipe(target_share=0.0, **changes)
        torch.manual_seed(0)
        student = DetectionModel("yolo11n.yaml", nc=10, verbose=False).to(device)
        student.args = get_cfg()
        levels = find_levels(student, recipe.levels)
        objective = Objective(method, recipe, make_teacher(device), tuple("abcdefghij"))
        balance = GradientBalance(objective.lambdas, 0.0, every=10**9)
        balance._n_batches = 1  # no measurement inside the timed steps
        self.model = DistilledDetector(student, levels, objective, balance).to(device).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6)
        self.batch = dict(batch)
        self.pixels = None
        if arm.endswith(CACHED):
            objective.cache = FeatureCache(Path(tempfile.mkdtemp()), {"arm": arm})
            self.pixels = (batch["img"] * 255).byte().cpu()

    def losses(self) -> dict[str, torch.Tensor]:
        """The terms of the teacher on the batch, unweighted."""
        from edgekd.train.distill.feature_cache import view_keys

        if self.pixels is not None:
            self.batch["view_keys"] = view_keys(self.pixels)
        _, items = self.model.loss(self.batch)
        return {name: items[f"{name}_loss"] for name in self.model.term_names}

    def run(self) -> float:
        """Take one step; its processor time in seconds, on a GPU its wall time."""
        from edgekd.train.distill.feature_cache import view_keys

        clock = time.perf_counter if self.batch["img"].is_cuda else time.process_time
        start = clock()
        if self.pixels is not None:
            self.batch["view_keys"] = view_keys(self.pixels)
        losses, _ = self.model.loss(self.batch)
        losses.sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.batch["img"].is_cuda:
            torch.cuda.synchronize()
        return clock() - start


def make_teacher(device: str):  # noqa: ANN201 - imported lazily
    from ultralytics.nn.tasks import DetectionModel

    from edgekd.models.levels import capture, find_levels
    from edgekd.models.teachers import Teacher

    torch.manual_seed(1)
    network = DetectionModel("yolo11n.yaml", nc=10, verbose=False).to(device)
    levels = find_levels(network, ("P3", "P4", "P5"))
    layers = [level.layer for level in levels]

    def maps_of(images: torch.Tensor) -> list[torch.Tensor]:
        with capture(network, layers) as maps:
            network(images)
        return [maps[layer] for layer in layers]

    channels = tuple(level.channels for level in levels)
    strides_px = tuple(float(level.stride_px) for level in levels)
    return Teacher("random", network, maps_of, channels, network.model[-1], tuple("abcdefghij"), strides_px)


def compare_with_mse(steps: dict[str, Step], batch: dict[str, torch.Tensor]) -> float:
    """Largest relative difference of the unweighted explicit loss from four times the MSE, over the real maps."""
    from edgekd.losses.ds2d2 import explicit_loss
    from edgekd.losses.feature import feature_loss, mse_distance

    teacher = steps["mse"].model.objective.teacher.maps(batch["img"])
    student = [maps + 0.1 * torch.randn_like(maps) for maps in teacher]
    explicit = explicit_loss(student, teacher, 1.0, 3.0, [None] * len(teacher))
    plain = 4.0 * feature_loss(student, teacher, mse_distance)
    difference = float((explicit - plain).abs() / plain)
    if difference > 1e-4:
        raise SystemExit(f"the explicit loss is {difference:.1e} away from plain MSE; no time is shown")
    return difference


def compare_cached(steps: dict[str, Step]) -> float:
    """Largest relative difference of a term with the teacher read from the disk, and with the same teacher asked."""
    differences = []
    for arm, step in steps.items():
        if arm.endswith(CACHED):
            step.losses()  # fills the cache
            theirs = steps[arm.removesuffix(CACHED)].losses()
            ours = step.losses()
            differences += [float((ours[name] - theirs[name]).abs() / theirs[name].abs()) for name in theirs]
    if max(differences) > 1e-3:
        raise SystemExit(
            f"a loss with a cached teacher is {max(differences):.1e} away from the other; no time is shown"
        )
    return max(differences)


if __name__ == "__main__":
    main()
