"""Names of weights: where each comes from, its sha256 where it is known, its licence, and where it is cached.

A name or a path goes in, a checked local file comes out. Nothing is downloaded unless `fetch` is called.
"""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable, InputError, ModelError
from edgekd.files import atomic_file, atomic_folder, cache_folder, sha256_of
from edgekd.model_set import ModelSet, listed_files, read_model_set, write_model_set
from edgekd.package_files import default_models

SHIPPED_DETECTOR = "yolo11n-nwpu"
SHIPPED_SEGMENTER = "tinysam-nwpu"
SHIPPED_CROP = "crop-nwpu"
SHIPPED = {SHIPPED_DETECTOR: ".pt", SHIPPED_SEGMENTER: ".pth"}
"""Names of the shipped models, and how their checkpoints end."""

Kind = Literal["detector", "segmenter"]


@dataclass(frozen=True)
class Weights:
    """One published checkpoint.

    Attributes:
        name: what the user types.
        kind: what it is.
        url: where it is published.
        sha256: of the published file; None where nobody here could check it.
        licence: of the weights.
    """

    name: str
    kind: Kind
    url: str
    sha256: str | None
    licence: str

    @property
    def file(self) -> Path:
        """Where the file lies once it was fetched."""
        return cache_folder() / self.url.rsplit("/", 1)[1]


PUBLISHED = (
    Weights(
        "yolo11n",
        "detector",
        "https://github.com/ultralytics/assets/releases/download/v8.4.0/yolo11n.pt",
        "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1",
        "AGPL-3.0 (Ultralytics)",
    ),
    Weights(
        "tinysam",
        "segmenter",
        "https://github.com/xinghaochen/TinySAM/releases/download/3.0/tinysam_42.3.pth",
        None,
        "Apache-2.0 (TinySAM)",
    ),
    Weights(
        "mobile_sam",
        "segmenter",
        "https://github.com/ultralytics/assets/releases/download/v8.4.0/mobile_sam.pt",
        None,
        "Apache-2.0 (MobileSAM)",
    ),
)


def named(name: str) -> Weights:
    """Return the entry of a name.

    Raises:
        InputError: there is none.
    """
    for weights in PUBLISHED:
        if weights.name == name:
            return weights
    known = ", ".join(weights.name for weights in PUBLISHED)
    raise InputError(f"no weights are named {name!r}, known are {known}; give one of them or the path of a checkpoint")


def resolve(name_or_path: str) -> Path:
    """Return the local file (or folder) of a name or a path; a fetched file is checked, a shipped one unfolded.

    Raises:
        InputError: neither a file nor a known name, or the name was not fetched yet.
        ModelError: the fetched file was changed.
        BackendUnavailable: a shipped name, and torch or onnx is not installed.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    if path.suffix in (".pt", ".pth"):
        raise InputError(f"{path} does not exist; give the path of a checkpoint or a name of: edgekd weights list")
    if name_or_path == SHIPPED_CROP:
        raise InputError(f"{name_or_path} ships as ONNX; give a checkpoint of: edgekd finetune --model crop")
    if name_or_path in SHIPPED:
        stages = read_model_set(default_models()).stages
        key = hashlib.sha256("".join(stage.sha256 for stage in stages.values()).encode()).hexdigest()[:12]
        file = cache_folder("weights", key) / f"{name_or_path}{SHIPPED[name_or_path]}"
        if not file.is_file():
            export_shipped(name_or_path, file)
        return file
    weights = named(name_or_path)
    if not weights.file.is_file():
        raise InputError(f"{weights.name} is not on this machine; get it with: edgekd weights fetch {weights.name}")
    verify(weights)
    return weights.file


def resolve_student(name_or_path: str) -> str:
    """Return the checkpoint (.pt) of a name or path, or an architecture (.yaml) as it is; errors as for `resolve`."""
    return name_or_path if name_or_path.endswith((".yaml", ".pt")) else str(resolve(name_or_path))


def export_shipped(name: str, output: Path) -> None:
    """Write a shipped model as a checkpoint that can be trained: `yolo11n-nwpu` (.pt) or `tinysam-nwpu` (.pth).

    Raises:
        InputError: another name, another suffix, or the file cannot be written.
        BackendUnavailable: torch, onnx, or for the detector ultralytics, is not installed.
    """
    if name not in SHIPPED:
        raise InputError(f"no shipped weights are named {name!r}; give {' or '.join(SHIPPED)}")
    if output.suffix not in (".pt", ".pth") or (name == SHIPPED_DETECTOR and output.suffix != ".pt"):
        raise InputError(f"{output} does not end in {SHIPPED[name]}; give such a file")
    needed = ("torch", "onnx", "timm", "ultralytics") if name == SHIPPED_DETECTOR else ("torch", "onnx", "timm")
    missing = [module for module in needed if not has_module(module)]
    if missing:
        raise BackendUnavailable(
            f"a checkpoint of {name} needs {', '.join(missing)}; install them with: pip install 'edgekd[train,build]'"
        )
    from edgekd.models.tinysam import save_tinysam
    from edgekd.models.unfold import shipped_detector, shipped_segmenter
    from edgekd.models.yolo11n import save_detector

    if name == SHIPPED_SEGMENTER:
        save_tinysam(shipped_segmenter(), output)
    else:
        shipped = read_model_set(default_models())
        detector = shipped_detector()
        detector.trained_scale = shipped.pipeline.trained_scale  # type: ignore[assignment]
        save_detector(detector, output, shipped.stages["detector"].source.licence)


def verify(weights: Weights) -> bool:
    """Check a fetched file; False where no sha256 is known.

    Raises:
        InputError: it was not fetched.
        ModelError: its sha256 differs.
    """
    if not weights.file.is_file():
        raise InputError(f"{weights.name} is not on this machine; get it with: edgekd weights fetch {weights.name}")
    if weights.sha256 is None:
        return False
    if sha256_of(weights.file) != weights.sha256:
        raise ModelError(f"{weights.file} is not the published file (its sha256 differs); delete it and fetch it again")
    return True


def fetch(weights: Weights, progress: Callable[[int, int], None]) -> Path:
    """Download a checkpoint into the cache; a broken download leaves nothing behind.

    Args:
        weights: what to get.
        progress: called with bytes so far and bytes in all (0 when the server does not say).

    Raises:
        InputError: the server cannot be reached, or the cache cannot be written.
        ModelError: what came is not the published file.
    """
    target = weights.file
    try:
        with atomic_file(target) as partial:
            with urllib.request.urlopen(weights.url, timeout=30) as response, partial.open("wb") as file:
                length = response.headers.get("Content-Length") or ""
                n_all = int(length) if length.isascii() and length.isdigit() else 0
                while block := response.read(1 << 18):
                    file.write(block)
                    progress(file.tell(), n_all)
            if n_all and partial.stat().st_size != n_all:
                raise ModelError(
                    f"{weights.url} sent {partial.stat().st_size} of {n_all} bytes; try again: edgekd weights fetch "
                    f"{weights.name}"
                )
            if weights.sha256 and sha256_of(partial) != weights.sha256:
                raise ModelError(f"{weights.url} sent another file than expected (its sha256 differs); try again later")
    except urllib.error.URLError as error:
        raise InputError(
            f"{weights.url} cannot be reached ({error.reason}); download it elsewhere and copy it to {target}"
        ) from error
    return target


def copy_shipped(
    destination: Path, detector_px: tuple[int, int] | None, encoder_px: tuple[int, int] | None
) -> ModelSet:
    """Copy the shipped graphs, whose sizes are open, with other input sizes in their description if asked for."""
    folder = default_models()
    model_set = read_model_set(folder)
    update = {}
    for name, size in (("detector_input", detector_px), ("encoder_input", encoder_px)):
        if size:
            spec = getattr(model_set.pipeline, name)
            update[name] = spec.model_copy(update={"height_px": size[0], "width_px": size[1]})
    model_set = model_set.model_copy(update={"pipeline": model_set.pipeline.model_copy(update=update)})
    with atomic_folder(destination, listed_files) as target:
        for stage in model_set.stages.values():
            shutil.copyfile(folder / stage.file, target / stage.file)
        write_model_set(target, model_set)
    return model_set
