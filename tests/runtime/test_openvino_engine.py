"""An OpenVINO network with open sizes: how many compiled models its engines keep, and which."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.runtime.engines import openvino as module
from edgekd.runtime.engines.openvino import KEPT_SIZES, OpenVinoEngine

openvino = pytest.importorskip("openvino")

SIDES = range(4, 4 + 2 * KEPT_SIZES)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """images (n, 3, h, w) -> doubled, n, h and w open."""
    from openvino import opset13 as ops

    images = ops.parameter([-1, 3, -1, -1], np.float32, name="images")
    doubled = ops.multiply(images, ops.constant(np.float32(2)))
    images.output(0).set_names({"images"})
    doubled.output(0).set_names({"doubled"})
    openvino.save_model(openvino.Model([doubled], [images]), tmp_path / "double.xml", compress_to_fp16=False)
    return tmp_path / "double.xml"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Every model that was compiled, in order; dead once nothing holds it."""
    made: list[weakref.ref[Any]] = []
    plain = module._Network._compile

    def remembered(self: Any) -> Any:
        model = plain(self)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(module._Network, "_compile", remembered)
    return made


def check(engine: OpenVinoEngine, side: int) -> None:
    images = np.random.default_rng(side).random((1, 3, side, 8), np.float32)
    np.testing.assert_array_equal(engine.infer({"images": images})["doubled"], images * 2)


def n_alive(compiled: list[weakref.ref[Any]]) -> int:
    gc.collect()
    return sum(reference() is not None for reference in compiled)


def test_the_size_unused_for_longest_is_given_up(network: Path, compiled: list[weakref.ref[Any]]) -> None:
    engine = OpenVinoEngine.open(network, "fp32", 1)
    for side in SIDES:
        check(engine, side)
        assert n_alive(compiled) == min(len(compiled), KEPT_SIZES)
    assert len(compiled) == len(SIDES)
    first, *others = SIDES[-KEPT_SIZES:]
    check(engine, first)  # now the last used
    assert len(compiled) == len(SIDES)
    check(engine, SIDES[0])
    check(engine, first)
    assert len(compiled) == len(SIDES) + 1
    check(engine, others[0])  # given up in place of `first`
    assert len(compiled) == len(SIDES) + 2
    engine.close()
    assert n_alive(compiled) == 0


def test_clones_share_what_one_of_them_holds(network: Path, compiled: list[weakref.ref[Any]]) -> None:
    engine = OpenVinoEngine.open(network, "fp32", 1)
    copy = engine.clone()
    check(engine, SIDES[0])
    check(copy, SIDES[0])
    assert len(compiled) == 1
    for side in SIDES[1 : 1 + KEPT_SIZES]:
        check(engine, side)
    assert compiled[0]() is not None
    check(engine, SIDES[0])
    assert len(compiled) == 1 + KEPT_SIZES
    engine.close()
    check(copy, SIDES[0])
    copy.close()
    assert n_alive(compiled) == 0
