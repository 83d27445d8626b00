"""Numbers stay with their objects, through a gap and dropped frames."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.runtime.tracks import NO_TRACK, Tracks
from edgekd.types import Detections

pytest.importorskip("trackers")


def frame(seconds: float, hidden: tuple[int, ...] = ()) -> Detections:
    """Three objects: one drives right, one left, one stands."""
    boxes = np.array(
        [[10 + 75 * seconds, 20, 60 + 75 * seconds, 80], [600 - 100 * seconds, 100, 660 - 100 * seconds, 150],
         [10, 300, 60, 360]], np.float32,
    )  # fmt: skip
    kept = np.array([index not in hidden for index in range(3)])
    confidence = np.array([0.9, 0.8, 0.4], np.float32)
    return Detections(boxes[kept], confidence[kept], np.zeros(int(kept.sum()), np.int32))


def test_numbers_stay_through_gaps_and_dropped_frames() -> None:
    tracks = Tracks(25.0)
    times = [index / 25 for index in range(40) if index not in (10, 11, 12, 20)]
    numbers = [tracks.update(frame(t, (1,) if 0.6 < t < 0.75 else ()), t) for t in times]
    settled = [row for row in numbers[2:] if len(row) == 3]
    assert all((row == settled[0]).all() for row in settled)
    assert len(set(settled[0].tolist())) == 3 and NO_TRACK not in settled[0]


def test_a_frame_without_boxes_has_no_numbers() -> None:
    tracks = Tracks()
    assert tracks.update(frame(0.0)[:0], 0.0).shape == (0,)
    assert tracks.update(frame(0.1), 0.1).dtype == np.int32
