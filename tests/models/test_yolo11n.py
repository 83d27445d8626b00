"""Detection checkpoints load without running their code; everything else is one sentence."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
tasks = pytest.importorskip("ultralytics.nn.tasks")

from edgekd.errors import ModelError  # noqa: E402
from edgekd.models.yolo11n import DetectorGraph, facts_of, load_detector  # noqa: E402


@pytest.mark.parametrize("config", ["yolov8n.yaml", "yolo11n.yaml", "yolo11s.yaml", "yolo26n.yaml"])
def test_families_load_and_keep_their_outputs(config: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tasks.DetectionModel(config, nc=2, verbose=False).eval()
    model.names = {0: "ship", 1: "tank"}
    torch.save({"model": model.half()}, tmp_path / "a.pt")
    loaded = load_detector(tmp_path / "a.pt")
    facts = facts_of(loaded)
    assert facts.class_names == ("ship", "tank")
    assert facts.strides_px == (8, 16, 32)
    assert facts.trained_scale is None
    picture = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        boxes, scores = DetectorGraph(loaded)(picture)
        decoded = loaded(picture)
    n_anchors = 8 * 12 + 4 * 6 + 2 * 3
    assert boxes.shape == (1, 4 * facts.reg_max, n_anchors)
    assert scores.shape == (1, 2, n_anchors)
    if not facts.end2end:
        torch.testing.assert_close(scores.sigmoid(), decoded[0][:, 4:], atol=1e-5, rtol=0)


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch hostile_code_ran",)


def test_hostile_and_foreign_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _Hostile()}, "hostile.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, "linear.pt")
    torch.save({"weight": torch.zeros(2)}, "state.pt")
    torch.save({"model": tasks.SegmentationModel("yolo11n-seg.yaml", nc=2, verbose=False)}, "segment.pt")
    Path("empty.pt").touch()
    Path("text.pt").write_text("hello")
    Path("pickle.pt").write_bytes(pickle.dumps(_Hostile()))
    whole = Path("state.pt").read_bytes()
    Path("cut.pt").write_bytes(whole[: len(whole) // 2])
    Path("model.onnx").touch()
    names = ["hostile", "linear", "state", "segment", "empty", "text", "pickle", "cut"]
    for path in [*(f"{name}.pt" for name in names), "model.onnx", "missing.pt"]:
        with pytest.raises(ModelError) as caught:
            load_detector(path)
        assert "\n" not in str(caught.value)
        assert path in str(caught.value)
    assert not Path("hostile_code_ran").exists()


@pytest.mark.assets
def test_the_real_checkpoint_finds_the_bus(assets: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    ultralytics = pytest.importorskip("ultralytics")
    model = load_detector(assets / "assets" / "yolo11n_coco.pt")
    picture = cv2.imread(str(Path(ultralytics.__file__).parent / "assets" / "bus.jpg"))
    small = cv2.resize(picture, (480, 640))[:, :, ::-1].transpose(2, 0, 1) / 255
    with torch.no_grad():
        _, scores = DetectorGraph(model)(torch.from_numpy(small.astype("float32"))[None])
    assert facts_of(model).class_names[int(scores[0].amax(1).argmax())] == "bus"
