"""Bundles that must not be opened: C refuses what Python refuses, with the same class of error and a cure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.bundle import check_files, check_target, read_manifest
from edgekd.capi.library import CChain, Library, LibraryError
from edgekd.errors import BackendUnavailable, BundleError, BundleMismatch, EdgekdError, InputError

Json = dict[str, Any]


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built / "tests" / "bundle", tmp_path / "bundle")


@pytest.fixture
def backends(built: Path) -> Path:
    return built / "tests" / "backends"


def edit(bundle: Path, change: Callable[[Json], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def swap(bundle: Path) -> None:
    """Two engines of the same size change places."""
    one, other = bundle / "encoder.fake", bundle / "decoder.fake"
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def set_file_name(name: str) -> Callable[[Json], object]:
    return lambda m: m["stages"]["encoder"]["files"][0].update(name=name)


def set_sizes(bundle: Path, sizes: object) -> None:
    edit(bundle, lambda m: m["pipeline"]["encoder_input"].update(smaller_sizes_px=sizes))


DAMAGE: dict[str, tuple[Callable[[Path], object], type[EdgekdError], str]] = {
    "no manifest": (lambda b: (b / "manifest.json").unlink(), BundleError, "is not a bundle"),
    "empty manifest": (lambda b: (b / "manifest.json").write_text(""), BundleError, "not JSON"),
    "truncated manifest": (lambda b: truncate(b / "manifest.json"), BundleError, "not JSON"),
    "manifest is a list": (lambda b: (b / "manifest.json").write_text("[]"), BundleError, "does not describe"),
    "huge manifest": (
        lambda b: (b / "manifest.json").write_text(" " * (5 << 20)), BundleError, "more than 4194304 bytes"
    ),
    "deep manifest": (lambda b: (b / "manifest.json").write_text("[" * 100_000), BundleError, "not JSON"),
    "newer": (lambda b: edit(b, lambda m: m.update(format_version=4)), BundleError, "format 4"),
    "no decoder": (lambda b: edit(b, lambda m: m["stages"].pop("decoder")), BundleError, "no stage decoder"),
    "path up": (lambda b: edit(b, set_file_name("../x.fake")), BundleError, "plain file name"),
    "absolute path": (lambda b: edit(b, set_file_name("/etc/passwd")), BundleError, "plain file name"),
    "dots": (lambda b: edit(b, set_file_name("..")), BundleError, "plain file name"),
    "reg_max": (lambda b: edit(b, lambda m: m["pipeline"]["head"].update(reg_max=65)), BundleError, "reg_max"),
    "size beyond the full one": (lambda b: set_sizes(b, [[16, 32], [33, 16]]), BundleError, "smaller"),
    "size of nothing": (lambda b: set_sizes(b, [[0, 32]]), BundleError, "smaller"),
    "size of three": (lambda b: set_sizes(b, [[16, 32, 3]]), BundleError, "smaller"),
    "sizes are text": (lambda b: set_sizes(b, "16x32"), BundleError, "smaller"),
    "escape in a name": (
        lambda b: edit(b, lambda m: m["pipeline"].update(class_names=["dark", "\x1b[31m"])), BundleError, "control"
    ),
    "half a character": (
        lambda b: edit(b, lambda m: m["pipeline"].update(class_names=["dark", "\ud800"])), BundleError, "not JSON"
    ),
    "no scale": (
        lambda b: edit(b, lambda m: m["pipeline"]["detector_input"].update(std=[0, 1, 1])), BundleError, "std is 0"
    ),
    "buckets fall": (lambda b: edit(b, lambda m: m.update(box_buckets=[4, 1])), BundleError, "box_buckets"),
    "unknown kind": (lambda b: edit(b, lambda m: m.update(kind="fastsam")), BundleError, "the kind 'fastsam'"),
    "max_boxes": (lambda b: edit(b, lambda m: m.update(max_boxes=0)), BundleError, "max_boxes"),
    "no pipeline": (lambda b: edit(b, lambda m: m.pop("pipeline")), BundleError, "pipeline"),
    "unknown backend": (lambda b: edit(b, lambda m: m.update(backend="abacus")), BundleError, "backend"),
    "lost engine": (lambda b: (b / "encoder.fake").unlink(), BundleError, "lacks the engine file encoder.fake"),
    "truncated engine": (lambda b: truncate(b / "decoder.fake"), BundleError, "sha256 differs"),
    "swapped engines": (swap, BundleError, "sha256 differs"),
    "tampered engine": (lambda b: (b / "detector.fake").write_text("Detector\n"), BundleError, "sha256 differs"),
    "other processor": (
        lambda b: edit(b, lambda m: m["target"].update(machine="riscv64")), BundleMismatch, "built for linux on riscv64"
    ),
    "other system": (
        lambda b: edit(b, lambda m: m["target"].update(os="windows")), BundleMismatch, "edgekd build-engine"
    ),
}  # fmt: skip


def open_in_python(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    check_target(bundle, manifest, None)
    check_files(bundle, manifest)


def test_whole_bundle_opens_in_both(library: Library, bundle: Path, backends: Path) -> None:
    open_in_python(bundle)
    with CChain.open(library, bundle, backend_path=backends) as chain:
        assert chain.class_names() == ("dark", "bright")


@pytest.mark.parametrize("name", DAMAGE)
def test_refused_by_both(name: str, library: Library, bundle: Path, backends: Path) -> None:
    damage, error, words = DAMAGE[name]
    damage(bundle)
    with pytest.raises(error, match=words) as in_c:
        CChain.open(library, bundle, backend_path=backends)
    with pytest.raises(error) as in_python:
        open_in_python(bundle)
    assert type(in_c.value) is type(in_python.value)
    assert "\n" not in str(in_c.value)


def test_more_sizes_than_are_kept(library: Library, bundle: Path, backends: Path) -> None:
    set_sizes(bundle, [[16, 32]] * 65)
    with pytest.raises(BundleError, match="smaller_sizes_px is not a list of 0 to 64 entries"):
        CChain.open(library, bundle, backend_path=backends)


def test_missing_backend_is_a_sentence(library: Library, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="openvino .*libedgekd_openvino.so.*edgekd capi build"):
        CChain.open(library, bundle, backend_path=tmp_path)


def test_backend_of_another_kind(library: Library, built: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copyfile(built / "prefix" / "lib" / "libedgekd.so", tmp_path / "libedgekd_openvino.so")
    with pytest.raises(BackendUnavailable, match="no module of this libedgekd"):
        CChain.open(library, bundle, backend_path=tmp_path)


def rewrite_engine(bundle: Path, stage: str, kind: str) -> None:
    from edgekd.bundle import describe_file

    path = bundle / f"{stage}.fake"
    path.write_text(kind)
    edit(bundle, lambda m: m["stages"][stage].update(files=[describe_file(path).model_dump()]))


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("wrong", BundleError, "class_logits has the shape"), ("broken", LibraryError, "fell over")],
)
def test_network_that_misbehaves(
    kind: str, error: type[Exception], words: str, library: Library, bundle: Path, backends: Path
) -> None:
    rewrite_engine(bundle, "detector", kind)
    with CChain.open(library, bundle, backend_path=backends) as chain, pytest.raises(error, match=words):
        chain(np.zeros((8, 8, 3), np.uint8))


def test_engine_that_the_backend_refuses(library: Library, bundle: Path, backends: Path) -> None:
    rewrite_engine(bundle, "decoder", "refused")
    with pytest.raises(BundleError, match="refuses this engine"):
        CChain.open(library, bundle, backend_path=backends)


def test_mirror_refuses_what_is_no_picture(library: Library, bundle: Path, backends: Path) -> None:
    with (
        CChain.open(library, bundle, backend_path=backends) as chain,
        pytest.raises(InputError, match="expected uint8"),
    ):
        chain(np.zeros((8, 8), np.uint8))


def test_library_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="edgekd capi build"):
        Library(tmp_path / "libedgekd.so")
