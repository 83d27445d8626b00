"""The engine bundle: a folder with `manifest.json` and one plain engine file per stage; written once, then only read.

Left of it Python builds, right of it Python and C read. A bundle that does not fit this machine is refused by its
manifest alone, before an engine library is asked.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from edgekd.backends import BackendName, Precision
from edgekd.errors import BundleError, BundleMismatch
from edgekd.files import is_file, parse_json, read_limited, sha256_of
from edgekd.graphs import Kind, StageName
from edgekd.model_set import (
    Pipeline,
    Source,
    TensorSpec,
    UnknownFormat,
    _Record,
    brief,
    check_version,
    kind_fault,
)
from edgekd.signature import verify

FORMAT_VERSION = 3
"""Format 3 added turned boxes (`pipeline.head.name`); bundles of upright boxes are written as format 2."""

FILE_NAME = "manifest.json"
_MOST = 2**31 - 1
_NO_DIGEST = "0" * 64
MAX_MANIFEST_BYTES = 4 << 20
MAX_ENGINE_BYTES = 16 << 30
SIGNATURE_NAME = "manifest.json.minisig"
"""Beside the manifest of a signed bundle; see `edgekd.signature`."""
MASK_DIGITS = 320 // 4 * 480 // 4 // 4
"""Of a mask of a known answer: four cells per digit."""


class EngineFile(_Record):
    """One file of a stage, by name within the bundle."""

    name: str
    sha256: str
    n_bytes: int = Field(ge=0, le=MAX_ENGINE_BYTES)


class EngineStage(_Record):
    """One network as the backend runs it; the first file is the one to open.

    `float_precision` is what the float layers of an INT8 network compute in; None means fp32.
    """

    files: tuple[EngineFile, ...] = Field(min_length=1, max_length=16)
    precision: Precision
    float_precision: Literal["fp32", "bf16"] | None = None
    inputs: tuple[TensorSpec, ...] = Field(min_length=1, max_length=16)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1, max_length=16)
    onnx_sha256: str
    source: Source
    calibration: dict[str, str] | None = None

    @property
    def arithmetic(self) -> Precision:
        """What layers without Q/DQ pairs compute in."""
        return self.float_precision or ("fp32" if self.precision == "int8" else self.precision)


class Target(_Record):
    """The machine that the engines are for; `compute_capability` such as "8.7" is None on a CPU.

    `n_multiprocessors` tells boards of one compute capability apart; it is None where the engine does not depend on it.
    """

    os: str
    machine: str
    compute_capability: str | None = None
    n_multiprocessors: int | None = Field(default=None, ge=1, le=_MOST)


class GateResult(_Record):
    """What an accuracy gate measured: name -> value, its limit, and the layers that were returned to float."""

    passed: bool
    measured: dict[str, float]
    limits: dict[str, float]
    n_images: int = Field(ge=0, le=_MOST)
    float_layers: tuple[str, ...] = ()


class KnownObject(_Record):
    """One object of a known answer.

    Attributes:
        xyxy: the box in picture pixels.
        class_id, confidence, predicted_iou: as the chain gave them.
        mask: a bit per cell of 4 x 4 pixels, row by row, eight to a byte, in hexadecimal digits.
    """

    xyxy: tuple[float, float, float, float]
    class_id: int = Field(ge=0, le=_MOST)
    confidence: float
    predicted_iou: float
    mask: str = Field(pattern=f"^[0-9a-f]{{{MASK_DIGITS}}}$")


class KnownAnswer(_Record):
    """A picture, and what the engines said of it when they were built; see `edgekd.runtime.known_answer`."""

    picture: EngineFile
    found: tuple[KnownObject, ...] = Field(max_length=16)
    given: tuple[KnownObject, ...] = Field(default=(), max_length=16)


class Manifest(_Record):
    """The content of `manifest.json`.

    `box_buckets` are the numbers of boxes that the decoder, or the crop network, was built for, ascending; empty means
    any number. `digest` is the sha256 of the file itself with 64 zeros in this place: it finds damage, and only a
    signature finds a forgery. Bundles of before it have none.
    """

    format_version: int = Field(default=2, ge=1)
    digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    kind: Kind = "sam"
    edgekd_version: str
    created: str
    backend: BackendName
    backend_version: str
    target: Target
    pipeline: Pipeline
    max_boxes: int = Field(gt=0, le=4096)
    box_buckets: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(default=(), max_length=64)
    stages: dict[StageName, EngineStage]
    gate: GateResult | None = None
    known_answer: KnownAnswer | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[EngineFile, ...]:
        """Every file of the bundle beside the manifest itself."""
        pictures = () if self.known_answer is None else (self.known_answer.picture,)
        return (*(file for stage in self.stages.values() for file in stage.files), *pictures)

    @property
    def engine_bytes(self) -> int:
        """Size of all engines."""
        return sum(file.n_bytes for stage in self.stages.values() for file in stage.files)


def read_manifest(folder: Path, public_key: str | Path | None = None) -> Manifest:
    """Read `manifest.json` without touching an engine.

    Args:
        folder: the bundle.
        public_key: the file of a public key, or its letters; the manifest must then carry a signature that fits. None
            looks at no signature.

    Raises:
        BundleError: the manifest is missing, damaged, names files outside the folder, or is of a newer format; or
            its signature is missing or does not fit.
        InputError: the public key cannot be read.
        BackendUnavailable: a signature is asked for and py-minisign is not installed.
    """
    path = folder / FILE_NAME
    if not is_file(path):
        raise BundleError(
            f"{folder} is not a bundle (no {FILE_NAME}); make one with: edgekd build-engine MODELS -o {folder}"
        )
    try:
        content = read_limited(path, MAX_MANIFEST_BYTES)
        if public_key is not None:
            verify(path, content, public_key)
        raw = parse_json(content)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON that a bundle can have ({error}); build the bundle again") from error
    try:
        check_version(raw, FORMAT_VERSION)
        manifest = Manifest.model_validate_json(content, strict=True)
    except UnknownFormat as error:
        raise BundleError(f"{folder} has {error}; update edgekd or build the bundle again") from error
    except ValidationError as error:
        raise BundleError(f"{path} does not describe a bundle ({brief(error)}); build it again") from error
    if manifest.digest is not None and manifest.digest != _digest_of(content, manifest.digest):
        raise BundleError(f"{path} was changed after the build (its sha256 differs); build the bundle again")
    _check_names(folder, manifest)
    return manifest


def _digest_of(content: bytes, digest: str) -> str:
    """Return the sha256 of a manifest with zeros in the place of its own sha256."""
    return hashlib.sha256(content.replace(digest.encode(), _NO_DIGEST.encode(), 1)).hexdigest()


def settled(folder: Path) -> Path:
    """Return the version that the link `folder` names now, so that all files come from one; a plain folder as it is."""
    return folder.resolve() if folder.is_symlink() else folder


def _check_names(folder: Path, manifest: Manifest) -> None:
    fault = kind_fault(manifest.kind, manifest.pipeline, manifest.stages)
    if fault:
        raise BundleError(f"{folder} {fault}; build it again")
    if list(manifest.box_buckets) != sorted(set(manifest.box_buckets)):
        raise BundleError(
            f"{folder} has box_buckets {manifest.box_buckets}, expected ascending numbers; build it again"
        )
    for name, stage in manifest.stages.items():
        _check_types(folder, name, stage)
    for file in manifest.files:
        if Path(file.name).name != file.name or file.name in ("", ".", ".."):
            raise BundleError(
                f"{folder} names the engine file {file.name!r}, expected a plain file name; build it again"
            )


def _check_types(folder: Path, name: StageName, stage: EngineStage) -> None:
    """Networks take float32, crops as uint8, and give float32; others would be read as garbage."""
    for specs, dtype in ((stage.inputs, "uint8" if name == "segmenter" else "float32"), (stage.outputs, "float32")):
        for spec in specs:
            if spec.dtype != dtype:
                raise BundleError(
                    f"{folder} has the {name}'s tensor {spec.name} in {spec.dtype}, expected {dtype}; build it again"
                )


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare size and sha256 of every engine file with the manifest.

    Raises:
        BundleError: a file is missing, truncated or was changed after the build.
    """
    for file in manifest.files:
        read_file(folder, file)


def read_files(folder: Path, stage: EngineStage) -> tuple[bytes, ...]:
    """Read the files of a stage once and return the bytes whose sha256 was compared with the manifest.

    Engines are made from these bytes, never from the files again, so that nothing can be changed in between.

    Raises:
        BundleError: a file is missing, truncated or was changed after the build.
    """
    return tuple(read_file(folder, file) for file in stage.files)


def read_file(folder: Path, file: EngineFile) -> bytes:
    """Read one file and compare it with the manifest; errors as for `read_files`."""
    path = folder / file.name
    if not is_file(path):
        raise BundleError(f"{folder} lacks the engine file {file.name}; build the bundle again")
    try:
        with path.open("rb") as opened:
            content = opened.read(file.n_bytes + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); make it readable or build again") from error
    if len(content) != file.n_bytes or hashlib.sha256(content).hexdigest() != file.sha256:
        raise BundleError(f"{path} was changed after the build (its sha256 differs); build the bundle again")
    return content


def check_target(
    folder: Path,
    manifest: Manifest,
    compute_capability: str | None,
    n_multiprocessors: int | None = None,
    backend_version: str | None = None,
) -> None:
    """Refuse a bundle for another machine.

    Args:
        folder: where the bundle lies, for the message.
        manifest: its manifest.
        compute_capability: of the GPU at hand, such as "8.7"; None without a GPU.
        n_multiprocessors: of the GPU at hand; None where it is not known.
        backend_version: of the library at hand, where its engines open in no other version; None where they do.

    Raises:
        BundleMismatch: operating system, processor family, GPU or library version differ from the bundle's.
    """
    target = manifest.target
    here = (platform.system().lower(), platform.machine())
    if (target.os, target.machine) != here:
        raise BundleMismatch(
            f"{folder} was built for {target.os} on {target.machine}, this machine is {here[0]} on {here[1]}; "
            f"rebuild it here: edgekd build-engine MODELS --backend {manifest.backend} -o {folder}"
        )
    if target.compute_capability is None:
        return
    if target.compute_capability == compute_capability:
        _check_board(folder, manifest, n_multiprocessors)
        _check_version(folder, manifest, backend_version)
        return
    found = f"this GPU has {compute_capability}" if compute_capability else "this machine shows no NVIDIA GPU"
    command = "edgekd build-engine MODELS --backend openvino"
    if compute_capability:
        sm = compute_capability.replace(".", "")
        command = f"edgekd build-engine MODELS --backend {manifest.backend} --sm {sm}"
    raise BundleMismatch(
        f"{folder} was built for compute capability {target.compute_capability}, {found}; "
        f"rebuild it: {command} -o {folder}"
    )


def _check_board(folder: Path, manifest: Manifest, n_multiprocessors: int | None) -> None:
    built_for = manifest.target.n_multiprocessors
    if None not in (built_for, n_multiprocessors) and built_for != n_multiprocessors:
        raise BundleMismatch(
            f"{folder} was built for a GPU with {built_for} multiprocessors, this one has {n_multiprocessors}; "
            f"rebuild it here: edgekd build-engine MODELS --backend {manifest.backend} -o {folder}"
        )


def _check_version(folder: Path, manifest: Manifest, version: str | None) -> None:
    """Compare the first three numbers of the version, on which a plan depends."""
    if version is not None and version.split(".")[:3] != manifest.backend_version.split(".")[:3]:
        raise BundleMismatch(
            f"{folder} was built by {manifest.backend} {manifest.backend_version}, this machine has {version}; "
            f"rebuild it here: edgekd build-engine MODELS --backend {manifest.backend} -o {folder}"
        )


def listed_files(folder: Path) -> set[str] | None:
    """Return the names of a bundle's files, for `edgekd.files.atomic_folder`; None when the folder is not a bundle."""
    try:
        manifest = read_manifest(folder)
    except BundleError:
        return None
    return {FILE_NAME, SIGNATURE_NAME, *(file.name for file in manifest.files)}


def describe_file(path: Path) -> EngineFile:
    """Return the manifest entry of an engine file."""
    return EngineFile(name=path.name, sha256=sha256_of(path), n_bytes=path.stat().st_size)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` into a bundle folder; returns it with its digest."""
    text = manifest.model_copy(update={"digest": _NO_DIGEST}).model_dump_json(indent=2) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / FILE_NAME).write_text(text.replace(_NO_DIGEST, digest, 1), encoding="utf-8")
    return manifest.model_copy(update={"digest": digest})
