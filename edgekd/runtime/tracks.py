"""Boxes of one frame after another get numbers that stay with their objects.

The tracker is ByteTrack as the package `trackers` (Roboflow, Apache-2.0) keeps it: it needs neither torch nor pictures,
it takes weak boxes into account, and it is told the time of every frame, so that dropped frames do not tear tracks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.errors import BackendUnavailable
from edgekd.types import Detections, Int32Array

NO_TRACK = -1


class Tracks:
    """The tracks of one stream; classes do not matter to them.

    Raises:
        BackendUnavailable: the extra `video` is not installed.
    """

    def __init__(self, frames_per_second: float = 25.0, confidence: float = 0.25) -> None:
        """Start without tracks.

        Args:
            frames_per_second: of the source.
            confidence: lowest confidence of a box that starts a track.
        """
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise BackendUnavailable(
                f"tracks need the package trackers ({error}); install it: pip install 'edgekd[video]'"
            ) from error
        self._detections_of: Any = supervision.Detections
        self._tracker: Any = ByteTrackTracker(
            frame_rate=frames_per_second,
            track_activation_threshold=confidence,
            high_conf_det_threshold=confidence,
            minimum_consecutive_frames=1,
        )

    def update(self, found: Detections, seconds: float) -> Int32Array:
        """Return the number of each box's track: (n,) int32, `NO_TRACK` for a box that belongs to none.

        Args:
            found: the boxes of the next frame.
            seconds: when it was taken, on any clock that rises.
        """
        boxes = self._detections_of(
            xyxy=found.xyxy.astype(np.float64).reshape(-1, 4),
            confidence=found.confidence.astype(np.float64),
            class_id=found.class_id.astype(np.int64),
            data={"row": np.arange(len(found))},
        )
        tracked = self._tracker.update(boxes, timestamp=seconds)
        numbers = np.full(len(found), NO_TRACK, np.int32)
        if len(tracked) and tracked.tracker_id is not None:
            numbers[tracked.data["row"]] = tracked.tracker_id
        return numbers
