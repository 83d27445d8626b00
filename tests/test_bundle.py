"""A bundle is whole or not there, and says why it does not fit before an engine is asked."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle import check_files, check_target, listed_files, read_files, read_manifest
from edgekd.errors import BundleError, BundleMismatch

SHA256_OF_A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


@pytest.fixture
def manifest_json() -> dict[str, Any]:
    spec = {
        "height_px": 64, "width_px": 64, "place": "centre", "interpolation": "linear",
        "mean": [0, 0, 0], "std": [255, 255, 255], "pad": [114, 114, 114],
    }  # fmt: skip
    pipeline = {
        "class_names": ["ship"], "head": {"strides_px": [8, 16, 32], "reg_max": 16, "end2end": False},
        "detector_input": spec, "encoder_input": spec, "prompt": "box",
    }  # fmt: skip
    tensor = {"name": "x", "shape": [1], "dtype": "float32", "layout": "N"}
    stage = {
        "files": [{"name": "a.engine", "sha256": SHA256_OF_A, "n_bytes": 1}],
        "precision": "fp16", "inputs": [tensor], "outputs": [tensor], "onnx_sha256": "0",
        "source": {"name": "x", "sha256": "0", "licence": "none"},
    }  # fmt: skip
    target = {"os": platform.system().lower(), "machine": platform.machine(), "compute_capability": "8.7"}
    return {
        "format_version": 1, "edgekd_version": "0", "created": "", "backend": "tensorrt", "backend_version": "10.3",
        "target": target, "pipeline": pipeline, "max_boxes": 8,
        "stages": {"detector": stage, "encoder": stage, "decoder": stage},
    }  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "a.engine").write_text("a")
    return folder


def with_pipeline(manifest: dict[str, Any], part: str, **changes: Any) -> dict[str, Any]:
    pipeline = manifest["pipeline"]
    return manifest | {"pipeline": pipeline | {part: pipeline[part] | changes}}


def test_a_whole_bundle_is_read(tmp_path: Path, manifest_json: dict[str, Any]) -> None:
    folder = write(tmp_path / "b", manifest_json)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    check_target(folder, manifest, "8.7")
    assert manifest.max_boxes == 8
    assert manifest.kind == "sam"


def test_damaged_manifests_are_refused(tmp_path: Path, manifest_json: dict[str, Any]) -> None:
    newer = manifest_json | {"format_version": 4, "future": True}
    outside = json.loads(json.dumps(manifest_json))
    outside["stages"]["encoder"]["files"][0]["name"] = "../../etc/passwd"
    lacking = manifest_json | {"stages": {"detector": manifest_json["stages"]["detector"]}}
    cases = [
        ("", "not JSON"), ("[1", "not JSON"), ("[]", "does not describe"), ("{}", "does not describe"),
        ("[" * 100_000, "not JSON"), (newer, "has format 4"), (outside, "plain file name"),
        (with_pipeline(manifest_json, "detector_input", std=[0, 1, 1]), "a std is 0"),
        (with_pipeline(manifest_json, "detector_input", mean=[float("nan"), 0, 0]), "finite|not JSON"),
        (with_pipeline(manifest_json, "head", strides_px=[]), "strides_px"),
        (with_pipeline(manifest_json, "head", strides_px=[-8]), "strides_px"),
        (manifest_json | {"box_buckets": [4, 1]}, "ascending"), (manifest_json | {"box_buckets": [0]}, "box_buckets"),
        (lacking, "no stage encoder"), (manifest_json | {"format_version": 0}, "format_version"),
        (manifest_json | {"kind": "fastsam"}, "the kind 'fastsam', and this edgekd knows sam, crop, yolo-seg"),
        (manifest_json | {"kind": "crop"}, "no stage segmenter, expected detector, segmenter for the kind crop"),
        (manifest_json | {"kind": "yolo-seg"}, "has the stage encoder"),
        (manifest_json | {"max_boxes": 0}, "max_boxes"), (manifest_json | {"max_boxes": "many"}, "max_boxes"),
    ]  # fmt: skip
    for content, words in cases:
        with pytest.raises(BundleError, match=words) as caught:
            read_manifest(write(tmp_path / "b", content))
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="is not a bundle"):
        read_manifest(tmp_path / "nowhere")


def test_tampered_engines_are_refused(tmp_path: Path, manifest_json: dict[str, Any]) -> None:
    folder = write(tmp_path / "b", manifest_json)
    manifest = read_manifest(folder)
    for content in ("b", "aa", ""):
        (folder / "a.engine").write_text(content)
        with pytest.raises(BundleError, match="changed after the build"):
            check_files(folder, manifest)
    (folder / "a.engine").unlink()
    with pytest.raises(BundleError, match="lacks the engine file"):
        check_files(folder, manifest)


@pytest.mark.parametrize(("here", "cure"), [(None, "--backend openvino"), ("8.9", "--sm 89")])
def test_another_gpu_is_told_how_to_rebuild(
    tmp_path: Path, manifest_json: dict[str, Any], here: str | None, cure: str
) -> None:
    folder = write(tmp_path / "b", manifest_json)
    with pytest.raises(BundleMismatch, match=cure):
        check_target(folder, read_manifest(folder), here)


@pytest.mark.parametrize(
    ("n_multiprocessors", "version", "words"),
    [
        (8, None, "built for a GPU with 16 multiprocessors, this one has 8"),
        (16, "10.7.0", "built by tensorrt 10.3.0, this machine has 10.7.0"),
        (16, "10.3.0.26", None),
        (None, None, None),
    ],
)
def test_boards_of_one_compute_capability_and_versions_are_told_apart(
    tmp_path: Path, manifest_json: dict[str, Any], n_multiprocessors: int | None, version: str | None, words: str | None
) -> None:
    manifest_json["target"]["n_multiprocessors"] = 16
    folder = write(tmp_path / "b", manifest_json | {"backend_version": "10.3.0"})
    if words is None:
        check_target(folder, read_manifest(folder), "8.7", n_multiprocessors, version)
        return
    with pytest.raises(
        BundleMismatch, match=f"{words}; rebuild it here: edgekd build-engine MODELS --backend tensorrt"
    ):
        check_target(folder, read_manifest(folder), "8.7", n_multiprocessors, version)


def test_another_processor_is_refused(tmp_path: Path, manifest_json: dict[str, Any]) -> None:
    manifest_json["target"]["machine"] = "riscv64"
    folder = write(tmp_path / "b", manifest_json)
    with pytest.raises(BundleMismatch, match="riscv64"):
        check_target(folder, read_manifest(folder), "8.7")


def test_only_a_whole_bundle_lists_its_files(tmp_path: Path, manifest_json: dict[str, Any]) -> None:
    folder = write(tmp_path / "b", manifest_json)
    assert listed_files(folder) == {"manifest.json", "manifest.json.minisig", "a.engine"}
    assert listed_files(write(tmp_path / "web", {"name": "a web page", "icons": []})) is None
    assert listed_files(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"max_boxes": 1' + "0" * 5000 + "}", "not JSON"),
        ('{"max_boxes": NaN}', "NaN is not a JSON number"),
        ('{"backend": "\\ud800"}', "characters that cannot be shown"),
        ('{"backend": "a\\u001b[2J"}', "characters that cannot be shown"),
        (" " * (5 << 20), "more than 4194304 bytes"),
    ],
)
def test_hostile_manifests_are_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        read_manifest(write(tmp_path / "b", text))
    assert str(caught.value).isprintable()


def test_a_name_that_no_file_can_have_is_no_bundle() -> None:
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(BundleError, match="is not a bundle"):
            read_manifest(Path(name))


def test_engines_are_made_from_the_bytes_that_were_checked(
    tmp_path: Path, manifest_json: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is exchanged after it was read, or an unlisted one beside it, is never opened."""
    folder = write(tmp_path / "b", manifest_json)
    (folder / "a.bin").write_text("not listed")
    stage = read_manifest(folder).stages["detector"]
    opened: list[str] = []
    open_path = Path.open

    def watched(path: Path, *arguments: Any) -> Any:
        opened.append(path.name)
        return open_path(path, *arguments)

    monkeypatch.setattr(Path, "open", watched)
    assert read_files(folder, stage) == (b"a",)
    assert opened == ["a.engine"]
