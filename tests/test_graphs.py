"""The graph contract: the shipped graphs follow it, and the names they had before stay readable."""

from __future__ import annotations

import pytest

from edgekd.graphs import CONTRACTS, OLD_NAMES, PREDICTED_IOU, STAGES_OF_KIND, is_input_size, tensor_of
from edgekd.model_set import read_model_set
from edgekd.package_files import default_models


def test_every_stage_of_a_kind_has_a_contract() -> None:
    for stages in STAGES_OF_KIND.values():
        assert stages[0] == "detector"
        assert set(stages) <= set(CONTRACTS)


def test_the_shipped_graphs_follow_the_contract() -> None:
    model_set = read_model_set(default_models())
    assert tuple(model_set.stages) == STAGES_OF_KIND["sam"]
    for name, stage in model_set.stages.items():
        contract = CONTRACTS[name]
        assert tuple(spec.name for spec in stage.inputs) == contract.inputs
        outputs = {spec.name: spec for spec in stage.outputs}
        assert [tensor_of(outputs, output) for output in contract.outputs] == list(stage.outputs)


def test_an_output_is_found_by_its_present_and_its_former_name() -> None:
    assert tensor_of({PREDICTED_IOU: 1, OLD_NAMES[PREDICTED_IOU]: 2}, PREDICTED_IOU) == 1
    assert tensor_of({OLD_NAMES[PREDICTED_IOU]: 2}, PREDICTED_IOU) == 2
    with pytest.raises(KeyError, match=PREDICTED_IOU):
        tensor_of({"low_res_masks": 0}, PREDICTED_IOU)


@pytest.mark.parametrize(
    ("size", "fits"),
    [((640, 1024), True), ((32, 8192), True), ((0, 64), False), ((33, 64), False), ((64, 8224), False)],
)
def test_sides_are_multiples_within_limits(size: tuple[int, int], fits: bool) -> None:
    assert is_input_size(size) is fits
