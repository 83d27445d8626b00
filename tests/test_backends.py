"""The table of backends is whole: its modules exist, and what stands in for a backend can run its graphs."""

from __future__ import annotations

import importlib.util
import typing

import pytest

from edgekd.backends import BACKENDS, TRIED_WITH, BackendName


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_whole(name: BackendName) -> None:
    backend = BACKENDS[name]
    assert importlib.util.find_spec(f"edgekd.deploy.{backend.module}_build")
    assert importlib.util.find_spec(f"edgekd.runtime.engines.{backend.module}")
    assert backend.float_precision in backend.precisions
    stand_in = BACKENDS[backend.stand_in]
    assert stand_in.device == "cpu"
    assert set(backend.calibration_targets) <= set(stand_in.calibration_targets)
    assert list(backend.box_buckets) == sorted(set(backend.box_buckets))


def test_every_name_has_an_entry_and_every_target_a_way_to_be_tried() -> None:
    assert tuple(BACKENDS) == typing.get_args(BackendName)
    for target, name in TRIED_WITH.items():
        assert target in BACKENDS[name].calibration_targets
