"""Tiles cover every picture, overlap enough, and never leave a narrow rest."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.model_set import DetectorHead, ImageInput, Pipeline
from edgekd.runtime.tiles import TileGrid, TileOptions, best_tiles, calls_for_tiles, choose_grid, trained_tile_px

SPEC = ImageInput(
    height_px=640, width_px=640, place="centre", interpolation="linear", mean=(0, 0, 0), std=(1, 1, 1), pad=(0, 0, 0)
)
PIPELINE = Pipeline(
    class_names=("ship",), head=DetectorHead(strides_px=(8,), reg_max=1, end2end=False), detector_input=SPEC
)


@pytest.mark.parametrize("size", [(640, 640), (641, 640), (1, 20_000), (20_000, 1), (1000, 1301), (12_000, 12_000)])
def test_tiles_cover_the_picture_and_overlap(size: tuple[int, int]) -> None:
    grid = TileGrid(size, 640, 160)
    for starts, length in ((grid.tops_px, size[0]), (grid.lefts_px, size[1])):
        side = min(640, length)
        assert starts[0] == 0 and starts[-1] + side == length
        steps = np.diff(starts)
        assert len(starts) == 1 or (steps.max() <= 640 - 160 and steps.max() - steps.min() <= 1)
    windows = list(grid)
    assert len(windows) == len(grid) == len(set(windows))
    assert {(right - left, bottom - top) for left, top, right, bottom in windows} == {
        (min(640, size[1]), min(640, size[0]))
    }


def test_an_object_as_large_as_the_overlap_is_seen_whole() -> None:
    grid = TileGrid((2000, 3000), 640, 160)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, [3000 - 160, 2000 - 160], (500, 2))
    boxes = np.concatenate([corner, corner + 160], 1).astype(np.float32)
    windows = np.array(list(grid))[best_tiles(grid, boxes)]
    assert (boxes[:, :2] >= windows[:, :2] - 1e-3).all() and (boxes[:, 2:] <= windows[:, 2:] + 1e-3).all()


def test_the_grid_follows_the_detector_and_the_objects() -> None:
    grid = choose_grid((4000, 4000), PIPELINE)
    assert (grid.tile_px, grid.overlap_px) == (640, 160)
    assert choose_grid((4000, 4000), PIPELINE, TileOptions(tile_px=1024, object_px=400)).overlap_px == 400
    assert calls_for_tiles((1080, 1920), SPEC) is None
    assert calls_for_tiles((12_000, 12_000), SPEC) == pytest.approx(18.75)


@pytest.mark.parametrize(
    ("scale", "input_px", "tile_px"),
    [(None, 640, 640), (0.678, 640, 960), (0.678, 1280, 1888), (1.0, 640, 640), (64.0, 640, 64)],
)
def test_a_tile_shows_objects_at_the_scale_of_the_training(scale: float | None, input_px: int, tile_px: int) -> None:
    size = {"height_px": input_px, "width_px": input_px + 320}
    changed = {"trained_scale": scale, "detector_input": SPEC.model_copy(update=size)}
    pipeline = PIPELINE.model_copy(update=changed)
    assert trained_tile_px(pipeline) == tile_px
    assert choose_grid((20_000, 20_000), pipeline).tile_px == tile_px
    assert choose_grid((20_000, 20_000), pipeline, TileOptions(tile_px=800)).tile_px == 800


def test_impossible_tiles_are_one_sentence() -> None:
    with pytest.raises(InputError, match="tile_px is 10, expected at least 64"):
        TileOptions(tile_px=10)
    with pytest.raises(InputError, match="object_px is -1"):
        TileOptions(object_px=-1)
    with pytest.raises(InputError, match="cannot overlap by 700 px"):
        choose_grid((4000, 4000), PIPELINE, TileOptions(object_px=700))
