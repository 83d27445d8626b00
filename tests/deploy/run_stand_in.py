"""Run bundles on the stand-in for TensorRT's library, through its real Python bindings or through the C library.

    python run_stand_in.py JOB.json

`stand_in.py` starts it, in a process of its own: one that imported torch has NVIDIA's libcudart among its global
symbols, which would stand before the host's. A chain and its clones run every picture three times one after another,
so that every shape has its graph; then all run at once. Answers must not change, memory must not grow, every
call must copy the same bytes, and in the end everything must be given back.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

COMPARED = 16  # in the long part the masks are compared in every so many calls; boxes and areas in all


class Account:
    """What the host's CUDA has counted."""

    def __init__(self) -> None:
        self._cudart = ctypes.CDLL(os.environ["EDGEKD_CUDART"], mode=ctypes.RTLD_GLOBAL)
        for name in ("host_device_bytes", "host_device_peak", "host_copied_bytes"):
            getattr(self._cudart, name).restype = ctypes.c_longlong

    def reset(self) -> None:
        """Count copies and the peak from here on."""
        self._cudart.host_reset()

    def memory(self) -> tuple[int, int]:
        """Live objects and bytes of device memory."""
        return self._cudart.host_live_objects(), self._cudart.host_device_bytes()

    def peak(self) -> int:
        """Most bytes of device memory so far."""
        return int(self._cudart.host_device_peak())

    def copied(self) -> np.ndarray:
        """Bytes copied to the device and to the host."""
        return np.array([self._cudart.host_copied_bytes(kind) for kind in (1, 2)])

    def graphs(self) -> int:
        """Launches of graphs."""
        return int(self._cudart.host_graph_launches())


def opener(job: dict[str, Any]) -> Callable[[str], Any]:
    """Return what opens a bundle in the job's language."""
    if job["language"] == "c":
        from edgekd.capi.library import CChain, Library

        library = Library(Path(job["library"]))
        return lambda folder: CChain.open(library, folder, backend_path=Path(job["modules"]))
    import tensorrt_names

    tensorrt_names.import_bindings(Path(job["site"]), "tensorrt_bindings", [Path(name) for name in job["libraries"]])
    from edgekd.runtime.chain import Chain

    return Chain.open


class Expected:
    """The first answer for every picture; later ones must be the same."""

    def __init__(self) -> None:
        self.answers: dict[int, dict[str, np.ndarray]] = {}

    def check(self, index: int, result: Any, masks_too: bool) -> None:
        """Compare an answer with the first one, or keep it."""
        found = {"boxes": result.detections.xyxy, "areas": result.masks.areas_px(), "iou": result.masks.predicted_iou}
        if masks_too:
            found["masks"] = np.stack([result.masks.full(row) for row in range(len(result))])
        kept = self.answers.setdefault(index, {name: array.copy() for name, array in found.items()})
        for name, array in found.items():
            assert np.array_equal(array, kept[name]), f"picture {index}: {name} changed"


def course(job: dict[str, Any], open_bundle: Callable[[str], Any], folder: str, account: Account) -> dict[str, Any]:
    """Run one bundle; returns what was counted and, below `answers`, what was said of each picture."""
    from edgekd.runtime.chain import ChainOptions
    from edgekd.runtime.detect import DetectOptions

    pictures, expected = np.load(job["pictures"]), Expected()
    options = [ChainOptions(DetectOptions(job["confidence"], max_boxes=n)) for n in job["max_boxes"]]
    cases = list(zip(pictures, options, strict=True))
    account.reset()
    before, graphs = account.memory(), account.graphs()
    with ExitStack() as stack:
        chains = [stack.enter_context(open_bundle(folder))]
        chains += [stack.enter_context(chains[0].clone()) for _ in range(job["n_clones"])]
        per_call = np.zeros((len(cases), 2), np.int64)
        for chain in (*chains, *chains, *chains):
            for index, (picture, choice) in enumerate(cases):
                copied = account.copied()
                expected.check(index, chain(picture, choice), masks_too=True)
                per_call[index] = account.copied() - copied
        settled, copied = account.memory(), account.copied()
        n_each = max(0, job["n_calls"] - 3 * len(chains) * len(cases)) // len(chains)

        def run(chain: Any) -> None:
            for step in range(n_each):
                index = step % len(cases)
                expected.check(index, chain(*cases[index]), masks_too=step % COMPARED == 0)

        with ThreadPoolExecutor(len(chains)) as pool:
            list(pool.map(run, chains))
        counts = np.array([len(range(index, n_each, len(cases))) for index in range(len(cases))]) * len(chains)
        assert np.array_equal(account.copied() - copied, counts @ per_call), "a call copied something else"
        assert account.memory() == settled, f"{account.memory()} grew from {settled}"
        assert account.peak() == settled[1], f"at a time {account.peak()} bytes, in the end {settled[1]}"
    assert account.memory() == before, f"{account.memory()} is left, {before} was there"
    return {
        "calls": 3 * len(chains) * len(cases) + n_each * len(chains),
        "graph_launches": account.graphs() - graphs,
        "device_bytes": settled[1] - before[1],
        "left": [after - old for after, old in zip(account.memory(), before, strict=True)],
        "copied_per_call": per_call.tolist(),
        "answers": expected.answers,
    }


def main(path: str) -> None:
    """Run every bundle of the job and write the counts as JSON, the answers beside them."""
    job = json.loads(Path(path).read_text())
    account, counted, arrays = Account(), {}, {}
    open_bundle = opener(job)
    for kind, folder in job["bundles"].items():
        counted[kind] = course(job, open_bundle, folder, account)
        for index, answer in counted[kind].pop("answers").items():
            arrays |= {f"{kind} {index} {name}": array for name, array in answer.items()}
    np.savez(job["result"], counted=json.dumps(counted), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
