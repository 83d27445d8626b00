"""A bundle that was changed in any way that matters does not give its known answer, whatever its hashes say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_files import replace_file, rewrite

import edgekd
from edgekd.bundle import read_manifest
from edgekd.errors import BundleError
from edgekd.runtime.chain import Chain
from edgekd.runtime.known_answer import GIVEN_BOXES, check_known_answer, difference


@pytest.fixture
def bundle(shipped_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_bundle, tmp_path / "b"))


def weights(bundle: Path, name: str, change: Callable[[np.ndarray], object]) -> None:
    """Change the weights of a stage and write a hash that fits them, as a wrong build would."""
    content = np.frombuffer((bundle / f"{name}.bin").read_bytes(), np.uint8).copy()
    change(content[: len(content) // 4 * 4].view(np.float32))
    replace_file(bundle, f"{name}.bin", content.tobytes())


def test_a_whole_bundle_gives_its_known_answer(bundle: Path) -> None:
    known = read_manifest(bundle).known_answer
    assert known is not None and known.found
    assert len(known.given) == len(GIVEN_BOXES)
    edgekd.load(bundle, verify=True).close()


def broken(values: np.ndarray) -> None:
    values[len(values) // 2 : len(values) // 2 + 64] = np.nan


def halved(values: np.ndarray) -> None:
    values[np.abs(values) < 10] *= 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: weights(b, "detector", broken), "not finite|NaN"),
        (lambda b: weights(b, "decoder", broken), "not finite|NaN"),
        (lambda b: weights(b, "detector", halved), "does not answer|cannot"),
        (
            lambda b: rewrite(b, lambda m: m["pipeline"]["detector_input"].update(std=[100, 255, 255])),
            "does not answer",
        ),
        (lambda b: rewrite(b, lambda m: m["pipeline"]["encoder_input"].update(std=[1, 1, 1])), "does not answer"),
        (lambda b: (b / "known_answer.png").write_bytes(b"x"), "sha256 differs"),
        (lambda b: rewrite(b, lambda m: m.update(known_answer=None)), "no known answer to verify"),
    ],
)
def test_what_was_changed_is_found(bundle: Path, change: Callable[[Path], object], words: str) -> None:
    change(bundle)
    with pytest.raises(BundleError, match=words):
        edgekd.load(bundle, verify=True)


def test_differences_are_told_apart(bundle: Path) -> None:
    with Chain.open(bundle) as chain:
        assert check_known_answer(bundle, chain)
        known = chain.manifest.known_answer
    assert known is not None
    assert difference(known, known) == ""
    assert "is gone" in difference(known, known.model_copy(update={"found": ()}))
    assert "is new" in difference(known.model_copy(update={"found": ()}), known)
    assert "instead of 3" in difference(known, known.model_copy(update={"given": ()}))
    first = known.given[0]
    other = first.model_copy(update={"predicted_iou": first.predicted_iou - 0.5})
    assert "a predicted IoU" in difference(known, known.model_copy(update={"given": (other, *known.given[1:])}))
    swapped = first.model_copy(update={"mask": "f" * len(first.mask)})
    assert "an IoU of" in difference(known, known.model_copy(update={"given": (swapped, *known.given[1:])}))
