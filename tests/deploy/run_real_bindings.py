"""Run a bundle through TensorRT's real Python bindings on the stand-in for its library; started by a test.

python run_real_bindings.py SITE LIBRARY,LIBRARY BUNDLE PICTURE.npy RESULT.npz
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
import tensorrt_names


def main(site: str, libraries: str, bundle: str, picture: str, result: str) -> None:
    """Import the bindings, run the chain three times and in a clone, and write what it answered."""
    cudart = ctypes.CDLL(os.environ["EDGEKD_CUDART"], mode=ctypes.RTLD_GLOBAL)
    cudart.host_device_bytes.restype = ctypes.c_longlong
    trt = tensorrt_names.import_bindings(Path(site), "tensorrt_bindings", [Path(name) for name in libraries.split(",")])
    from edgekd.runtime.chain import Chain, ChainOptions
    from edgekd.runtime.detect import DetectOptions

    options, image = ChainOptions(DetectOptions(confidence=0.05, max_boxes=7)), np.load(picture)
    with Chain.open(bundle) as chain, chain.clone() as clone:
        answers = [each(image, options) for each in (chain, chain, chain, clone)]
        graphs = cudart.host_graph_launches()
    answer = answers[0]
    same = all(np.array_equal(other.masks.full(0), answer.masks.full(0)) for other in answers)
    masks = np.stack([answer.masks.full(index) for index in range(len(answer))])
    left = cudart.host_live_objects()
    np.savez(result, boxes=answer.detections.xyxy, masks=masks, same=same, graphs=graphs, left=left,
             bytes=cudart.host_device_bytes(), version=trt.__version__)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
