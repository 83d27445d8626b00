"""Ray Data maps a bundle over an archive: rows with the path of a picture go in, rows with its objects come out.

    paths -> (tiles) -> workers, each with an open chain -> (seams) -> objects

Ray spreads the rows over machines, starts a worker that died again and runs its rows again; none of that is written
here. Paths must mean the same on every machine: a shared file system. Needs `pip install 'edgekd[ray]'`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.bundle import read_manifest
from edgekd.errors import BackendUnavailable, InputError
from edgekd.model_set import Pipeline
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.journal import decode_tile, encode_tile
from edgekd.runtime.results.formats import objects_json
from edgekd.runtime.seams import Seams
from edgekd.runtime.segment import empty_masks
from edgekd.runtime.sources import read_picture
from edgekd.runtime.tiles import TileOptions, choose_grid
from edgekd.runtime.windows import open_windows
from edgekd.types import ChainResult

Row = dict[str, Any]
TILES_PER_TASK = 8
"""Tiles of a large picture that travel to a worker together: what is run again when the worker dies."""

PARTS_PER_WORKER = 8
"""Parts into which tiles are sorted by their picture, before their seams are joined."""


@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """How an archive is run.

    Attributes:
        chain: what is looked for; its masks are left out with `masks=False`.
        tiles: how every picture is cut; its tiles then go to different workers and the seams are joined at the end.
            None runs pictures whole.
        workers: processes with an open chain, over all machines.
        threads: CPU threads of each; Ray gives a worker as many of its CPUs.
    """

    chain: ChainOptions = field(default_factory=ChainOptions)
    tiles: TileOptions | None = None
    workers: int = 2
    threads: int = 1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: `workers` or `threads` is below 1.
        """
        if self.workers < 1 or self.threads < 1:
            raise InputError(f"workers is {self.workers} and threads is {self.threads}, expected at least 1 of each")


def map_bundle(dataset: Any, bundle: str | Path, options: ArchiveOptions | None = None) -> Any:
    """Run a bundle over a data set of pictures.

    Args:
        dataset: a `ray.data.Dataset` with a column `path`; its other columns are kept where pictures run whole.
        bundle: what `edgekd build-engine` wrote, at the same path on every machine.
        options: the defaults when None.

    Returns:
        A `ray.data.Dataset`, not computed yet: one row per picture with `path`, `n_objects`, `objects` (JSON as in the
        files of `edgekd run`), `reason` (what could not be read, one sentence, or "") and, of pictures run whole,
        `worker` (the process that ran it).

    Raises:
        BackendUnavailable: Ray is not installed.
        BundleError: the bundle is missing or damaged.
        InputError: tiles are wanted, and the workers take all CPUs of the cluster.
    """
    try:
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise BackendUnavailable(
            f"archives are mapped with Ray Data ({error}); install it: pip install 'edgekd[ray]'"
        ) from error
    folder, options = Path(bundle).absolute(), options or ArchiveOptions()
    pipeline = read_manifest(folder).pipeline
    workers = {
        "compute": ActorPoolStrategy(size=options.workers),
        "num_cpus": options.threads,
        "fn_constructor_args": (folder, options),
    }
    if options.tiles is None:
        return dataset.map(PictureWorker, **workers)
    _check_cpus(options)
    cut = dataset.flat_map(cut_picture, fn_kwargs={"pipeline": pipeline, "tiles": options.tiles})
    found = cut.repartition(target_num_rows_per_block=TILES_PER_TASK).map(TileWorker, **workers)
    return found.groupby("path", num_partitions=PARTS_PER_WORKER * options.workers).map_groups(
        join_tiles, batch_format="numpy", fn_kwargs={"class_names": pipeline.class_names, "masks": options.chain.masks}
    )


def _check_cpus(options: ArchiveOptions) -> None:
    """Refuse workers that leave no CPU for cutting and joining: Ray would wait for one for ever.

    Raises:
        InputError: they take all CPUs of the cluster that runs.
    """
    import ray

    taken = options.workers * options.threads
    has = int(ray.cluster_resources().get("CPU", 0)) if ray.is_initialized() else taken + 1
    if taken >= has:
        raise InputError(
            f"{options.workers} workers of {options.threads} threads take all {has} CPUs of the cluster, and tiles are "
            "cut and joined beside them, expected one CPU more; give fewer workers"
        )


class PictureWorker:
    """A process of Ray with an open chain: a picture's path in, its objects out."""

    def __init__(self, bundle: Path, options: ArchiveOptions) -> None:
        self._chain, self._options = Chain.open(bundle, options.threads), options.chain

    def __call__(self, row: Row) -> Row:
        """Run one picture; one that cannot be read is a row with a reason."""
        worker = {"worker": os.getpid()}
        try:
            result = self._chain(read_picture(Path(row["path"])), self._options)
        except InputError as error:
            return row | worker | {"n_objects": 0, "objects": "[]", "reason": str(error)}
        objects = json.dumps(objects_json(result, self._options.masks))
        return row | worker | {"n_objects": len(result), "objects": objects, "reason": ""}


class TileWorker:
    """A process of Ray with an open chain: a window of a picture in, what it holds out."""

    def __init__(self, bundle: Path, options: ArchiveOptions) -> None:
        self._chain, self._options = Chain.open(bundle, options.threads), options.chain

    def __call__(self, row: Row) -> Row:
        """Run one tile; one that cannot be read is a row with a reason."""
        if row["reason"]:
            return row | {"found": ""}
        try:
            windows = open_windows(row["path"])
            try:
                pixels = windows.read(_window(row))
            finally:
                windows.close()
        except InputError as error:
            return row | {"found": "", "reason": str(error)}
        result = self._chain(pixels, self._options)
        masks = result.masks if self._options.masks else None
        return row | {"found": json.dumps(encode_tile(result.detections, masks))}


def cut_picture(row: Row, pipeline: Pipeline, tiles: TileOptions) -> list[Row]:
    """Return one row per tile of a picture; one row with a reason where it cannot be opened."""
    path = str(row["path"])
    place = {"left": 0, "top": 0, "right": 0, "bottom": 0, "height": 0, "width": 0}
    try:
        windows = open_windows(path)
    except InputError as error:
        return [{"path": path, **place, "reason": str(error)}]
    height, width = windows.size_px
    windows.close()
    sides = ("left", "top", "right", "bottom")
    return [
        {"path": path, **dict(zip(sides, window, strict=True)), "height": height, "width": width, "reason": ""}
        for window in choose_grid((height, width), pipeline, tiles)
    ]


def join_tiles(group: Mapping[str, Any], class_names: tuple[str, ...], masks: bool) -> dict[str, list[Any]]:
    """Join what the tiles of one picture found, as `edgekd.runtime.seams` does: one row."""
    n_tiles = len(group["path"])
    rows = [{name: values[index] for name, values in group.items()} for index in range(n_tiles)]
    reasons = [str(row["reason"]) for row in rows if row["reason"]]
    seams = Seams((int(rows[0]["height"]), int(rows[0]["width"])))
    for row in rows:
        if row["found"]:
            seams.add(_window(row), *decode_tile(json.loads(row["found"])))
    detections, united = seams.take()
    united = united or empty_masks(seams.size_px, len(detections))
    objects = objects_json(ChainResult(detections, united, class_names), masks)
    reason = f"{len(reasons)} of {n_tiles} tiles could not be read (first: {reasons[0]})" if reasons else ""
    return {
        "path": [str(rows[0]["path"])],
        "n_objects": [len(objects)],
        "objects": [json.dumps(objects)],
        "reason": [reason],
    }


def _window(row: Row) -> tuple[int, int, int, int]:
    return int(row["left"]), int(row["top"]), int(row["right"]), int(row["bottom"])
