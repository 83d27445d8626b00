"""Parity of two bundles: pictures that were fed in different sizes are not compared with each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.measure.parity import _sameness


def test_pictures_of_different_sizes_are_not_compared() -> None:
    one, other = np.ones(8, np.float32), np.ones(12, np.float32)
    assert _sameness([one, other]) is None
    assert _sameness([one, other, -one]) == pytest.approx(-1)
