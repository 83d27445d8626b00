"""Run a bundle through the C library in a process of its own; started by a test.

    python run_c_library.py LIBRARY MODULES BUNDLE PICTURE.npy RESULT.npz

A process that imported torch has NVIDIA's libcudart among its global symbols, which would stand before the host's.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edgekd.capi.library import CChain, Library
from edgekd.runtime.chain import ChainOptions
from edgekd.runtime.detect import DetectOptions


def main(library: str, modules: str, bundle: str, picture: str, result: str) -> None:
    """Run in two threads and once more, and write what the three runs answered."""
    options, image = ChainOptions(DetectOptions(confidence=0.05, max_boxes=7)), np.load(picture)
    cudart = ctypes.CDLL(os.environ["EDGEKD_CUDART"])
    with CChain.open(Library(Path(library)), bundle, backend_path=Path(modules)) as c, c.clone() as clone:
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda chain: chain(image, options), (c, clone)))
        answers.append(c(image, options))
    masks = np.stack([[answer.masks.full(index) for index in range(len(answer))] for answer in answers])
    boxes = np.stack([answer.detections.xyxy for answer in answers])
    np.savez(result, masks=masks, boxes=boxes, left=cudart.host_live_objects(), graphs=cudart.host_graph_launches())


if __name__ == "__main__":
    main(*sys.argv[1:])
