"""NaN never passes for a picture without objects: the chain says that an output is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgekd.errors import BundleError
from edgekd.runtime.engines import Array, floats
from edgekd.runtime.segment import decode_masks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_refused(value: float) -> None:
    outputs = {"class_logits": np.zeros((1, 10, 84), np.float16), "mask_logits": np.zeros((2, 8, 8), np.float32)}
    assert floats(outputs, "class_logits").dtype == np.float32
    outputs["class_logits"][0, 3, 7] = value
    with pytest.raises(BundleError, match="output class_logits is not finite"):
        floats(outputs, "class_logits")
    assert floats(outputs, "mask_logits") is outputs["mask_logits"]


@pytest.mark.parametrize("name", ["low_res_masks", "iou_predictions"])
def test_a_decoder_with_broken_weights_gives_no_empty_masks(name: str) -> None:
    class Decoder:
        def infer(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
            n = len(feeds["boxes"])
            outputs = {"low_res_masks": np.zeros((n, 4, 4), np.float32), "iou_predictions": np.zeros(n, np.float32)}
            outputs[name][0] = np.nan
            return dict(outputs)

    with pytest.raises(BundleError, match="is not finite"):
        decode_masks(Decoder(), np.zeros((1, 256, 2, 2), np.float32), np.zeros((1, 4), np.float32), ())  # type: ignore[arg-type]
