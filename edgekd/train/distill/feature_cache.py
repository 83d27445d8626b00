"""A teacher's maps on disk, so that a picture it has seen costs a read instead of a forward pass.

Batches of pictures go in with a key for each; the teacher's maps come out, from the disk where they are and from the
teacher where not. The key is a hash of the very pixels that the network sees, after crops, flips and mosaics, so a map
is never taken for another view. It repays itself when views come again: in epochs that repeat (`n_views` of a recipe)
and in further runs with the same seed, data and teacher.

Maps are kept as float16, and one that was just computed is rounded likewise: a run is the same with a cold and a warm
cache. One file per picture, in a folder of the teacher and of all that changes its maps.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.errors import InputError, TrainingError
from edgekd.files import write_text

LARGEST_BYTES = 20 << 30
"""What a cache may grow to by default; after that nothing is added."""

_FACTS = "teacher.json"
_LONGEST_WRITE_S = 3600.0


@dataclass
class Use:
    """How often the cache helped: pictures read, computed, and computed without room to keep them."""

    n_read: int = 0
    n_computed: int = 0
    n_not_kept: int = 0


class FeatureCache:
    """Maps of one teacher.

    Args:
        folder: of all caches; this one gets a folder of its own below.
        facts: what the maps depend on beside the pixels: teacher, levels, block, precision. JSON values.
        largest_bytes: of this cache on the disk.

    Raises:
        TrainingError: the folder cannot be made.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], largest_bytes: int = LARGEST_BYTES) -> None:
        text = json.dumps(facts, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.largest_bytes = largest_bytes
        self.use = Use()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / _FACTS, text + "\n")
            self._collect()
        except (OSError, InputError) as error:
            reason = error.strerror if isinstance(error, OSError) else "see its rights, and the room on its disk"
            raise TrainingError(f"{self.folder} cannot be written ({reason}); give another folder") from error
        self.n_bytes = sum(path.stat().st_size for path in self.folder.rglob("*.f16"))

    def maps(self, compute: Callable[[Tensor], list[Tensor]], images: Tensor, keys: Sequence[str]) -> list[Tensor]:
        """The maps of a batch, one (N, C_l, h_l, w_l) per level, in the dtype and on the device of `images`.

        Args:
            compute: pictures (n, 3, H, W) to maps, called once with those that are not on the disk.
            images: (N, 3, H, W) as the network sees them.
            keys: of `view_keys`, one per picture.
        """
        found = [self._read(key) for key in keys]
        missing = [index for index, maps in enumerate(found) if maps is None]
        if missing:
            computed = [maps.half().cpu() for maps in compute(images[missing])]
            for row, index in enumerate(missing):
                found[index] = [maps[row] for maps in computed]
                self._write(keys[index], [maps[row] for maps in computed])
        self.use.n_read += len(keys) - len(missing)
        self.use.n_computed += len(missing)
        levels = zip(*[maps for maps in found if maps is not None], strict=True)
        return [torch.stack(level).to(images.device, images.dtype) for level in levels]

    def _collect(self) -> None:
        """Remove what killed runs were writing; a map takes far less than the hour that a living one is given."""
        for path in self.folder.glob("??/.*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _LONGEST_WRITE_S:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.f16"

    def _read(self, key: str) -> list[Tensor] | None:
        """The maps of one picture; None where there are none, or a file that was cut short."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        shapes, _, values = content.partition(b"\n")
        try:
            sizes = [tuple(int(side) for side in shape.split(b"x")) for shape in shapes.split(b",")]
            flat = np.frombuffer(values, np.float16)
        except ValueError:
            return None
        counts = [int(np.prod(size)) for size in sizes]
        if flat.size != sum(counts):
            return None
        parts = torch.from_numpy(flat.copy()).split(counts)
        return [part.view(size) for part, size in zip(parts, sizes, strict=True)]

    def _write(self, key: str, maps: Sequence[Tensor]) -> None:
        shapes = ",".join("x".join(str(side) for side in each.shape) for each in maps)
        content = shapes.encode() + b"\n" + b"".join(each.contiguous().numpy().tobytes() for each in maps)
        if self.n_bytes + len(content) > self.largest_bytes:
            self.use.n_not_kept += 1
            return
        path = self._path(key)
        temporary: str | None = None
        try:
            path.parent.mkdir(exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            raise TrainingError(
                f"{path} cannot be written ({error.strerror}); free space, or give another folder for the feature cache"
            ) from error
        self.n_bytes += len(content)


def view_keys(images: Tensor) -> list[str]:
    """A key per picture of a batch (N, 3, H, W) uint8 on the CPU: a hash of its size and pixels."""
    shape = "x".join(str(side) for side in images.shape[1:]).encode()
    return [
        hashlib.blake2b(shape + image.contiguous().numpy().tobytes(), digest_size=16).hexdigest() for image in images
    ]
