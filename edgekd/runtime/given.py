"""Boxes that a person gave, per picture, on their way through a chain instead of the detector's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.errors import InputError
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.types import ChainResult, Detections, UInt8Array


@dataclass(frozen=True, repr=False)
class GivenBoxes:
    """Boxes with classes of their own.

    Attributes:
        class_names: what the `class_id` of the boxes count.
        by_picture: resolved path of a picture -> its boxes, none for background; each overlaps its picture.
    """

    class_names: tuple[str, ...]
    by_picture: Mapping[Path, Detections]

    def __repr__(self) -> str:
        """Name the content: equal boxes have equal names."""
        parts = [repr(self.class_names).encode()]
        for path, boxes in sorted(self.by_picture.items()):
            parts += [str(path).encode("utf-8", "surrogateescape"), boxes.xyxy.tobytes(), boxes.class_id.tobytes()]
        return f"GivenBoxes({hashlib.sha256(b'|'.join(parts)).hexdigest()})"

    def check(self, paths: Sequence[Path]) -> None:
        """Check that every picture is known.

        Raises:
            InputError: one is not.
        """
        missing = [path for path in paths if path.resolve() not in self.by_picture]
        if missing:
            raise InputError(
                f"{missing[0]} is not among the {len(self.by_picture)} pictures with boxes; give boxes of every "
                "picture, none for one without objects"
            )

    def segment(self, chain: Chain, path: Path, picture: UInt8Array, options: ChainOptions) -> ChainResult:
        """Mask the boxes of a picture; the result has their classes and the confidence 1.

        Raises:
            InputError: as for a call of the chain.
        """
        boxes = self.by_picture[path.resolve()]
        result = chain(picture, options, boxes=boxes.xyxy)
        detections = replace(result.detections, class_id=boxes.class_id)
        return replace(result, detections=detections, class_names=self.class_names)
