"""Which sizes a bundle takes: wide and tall ones beside a square, one where a backend or a quantized graph has one."""

from __future__ import annotations

import pytest

from edgekd.deploy.input_sizes import shapes_of, sized, smaller_sizes
from edgekd.model_set import ModelSet, read_model_set
from edgekd.package_files import default_models


@pytest.fixture(scope="module")
def models() -> ModelSet:
    return read_model_set(default_models())


def test_a_square_gets_wide_and_tall_sizes_in_steps_of_32() -> None:
    sizes = smaller_sizes(1024, 1024)
    assert (576, 1024) in sizes and (1024, 576) in sizes and (1024, 1024) not in sizes
    assert all(height % 32 == 0 and width % 32 == 0 and max(height, width) == 1024 for height, width in sizes)
    assert len(set(sizes)) == len(sizes)
    assert smaller_sizes(704, 1024) == () and smaller_sizes(32, 32) == ()


def test_open_sides_are_those_with_more_than_one_size(models: ModelSet) -> None:
    shapes = shapes_of(sized(models, None, (512, 1024), one_size=False))
    assert shapes.built["detector"]["images"] == (1, 3, -1, -1)
    assert shapes.full["detector"]["images"] == (1, 3, 640, 640)
    assert shapes.built["encoder"]["image"] == (1, 3, 512, 1024)
    assert shapes.built["decoder"]["image_embeddings"] == (1, 256, 32, 64)


def test_a_graph_of_fixed_sides_and_a_plan_have_one_size(models: ModelSet) -> None:
    assert not sized(models, None, None, one_size=True).encoder_input.smaller_sizes_px
    encoder = models.stages["encoder"].with_shapes({"image": (1, 3, 1024, 1024), "image_embeddings": (1, 256, 64, 64)})
    fixed = models.model_copy(update={"stages": {**models.stages, "encoder": encoder}})
    pipeline = sized(fixed, None, None, one_size=False)
    assert not pipeline.encoder_input.smaller_sizes_px and pipeline.detector_input.smaller_sizes_px
