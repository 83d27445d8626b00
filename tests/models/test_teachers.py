"""Teachers: every layout of a ViT gives the features of its own library, grids lie over each other, all is frozen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")

from edgekd.errors import InputError, ModelError
from edgekd.models.dinov2 import IMAGENET_MEAN, IMAGENET_STD, load_vit, patch_features
from edgekd.models.levels import capture, find_levels
from edgekd.models.teachers import Teacher, detector_teacher, module_teacher, predict, vit_teacher

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

WIDTH, HEADS, DEPTH = 64, 2, 2


def _transformers_vit(kind: str) -> tuple[nn.Module, int]:
    transformers = pytest.importorskip("transformers")
    common = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    v2 = common | {"image_size": 56, "patch_size": 14}
    v3 = common | {"image_size": 64, "patch_size": 16, "intermediate_size": 128, "num_register_tokens": 4}
    if kind == "v2-registers":
        return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**v2)), 14
    if kind.startswith("v2"):
        config = transformers.Dinov2Config(**v2, use_swiglu_ffn=kind == "v2-gated")
        return transformers.Dinov2Model(config), 14
    config = transformers.DINOv3ViTConfig(**v3, use_gated_mlp=kind == "v3-gated")
    return transformers.DINOv3ViTModel(config), 16


@pytest.mark.parametrize("kind", ["v2", "v2-gated", "v2-registers", "v3", "v3-gated"])
def test_features_are_those_of_the_original_network(kind, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    original, patch_px = _transformers_vit(kind)
    for parameter in original.parameters():
        parameter.data.normal_(0, 0.1)
    save_file(
        {name: tensor.contiguous() for name, tensor in original.state_dict().items()}, tmp_path / "vit.safetensors"
    )
    network, shape = load_vit(tmp_path / "vit.safetensors", n_heads=HEADS)
    images = torch.rand(2, 3, 4 * patch_px, 4 * patch_px)
    mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        tokens = original.eval()((images - mean) / std).last_hidden_state[:, 1 + shape.n_registers :]
        found = patch_features(network, shape, images, block=DEPTH)
    torch.testing.assert_close(found, tokens.transpose(1, 2).reshape(2, WIDTH, 4, 4), rtol=1e-3, atol=1e-4)
    assert shape.n_registers == (4 if kind in ("v2-registers", "v3", "v3-gated") else 0)


@pytest.fixture(scope="module")
def facebook_file(tmp_path_factory) -> Path:
    """A random DINOv2 ViT in the names of facebookresearch, one head of 64 channels, two blocks, 3x3 positions."""
    shapes = {
        "cls_token": (1, 1, 64), "mask_token": (1, 64), "pos_embed": (1, 10, 64),
        "norm.weight": (64,), "norm.bias": (64,),
        "patch_embed.proj.weight": (64, 3, 14, 14), "patch_embed.proj.bias": (64,),
    }  # fmt: skip
    for block in range(DEPTH):
        for name, shape in {
            "norm1.weight": (64,), "norm1.bias": (64,), "norm2.weight": (64,), "norm2.bias": (64,), "ls1.gamma": (64,),
            "ls2.gamma": (64,), "attn.qkv.weight": (192, 64), "attn.qkv.bias": (192,), "attn.proj.weight": (64, 64),
            "attn.proj.bias": (64,), "mlp.fc1.weight": (256, 64), "mlp.fc1.bias": (256,), "mlp.fc2.weight": (64, 256),
            "mlp.fc2.bias": (64,),
        }.items():  # fmt: skip
            shapes[f"blocks.{block}.{name}"] = shape
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    torch.save(
        {"teacher": {f"backbone.{k}": torch.randn(s, generator=generator) * 0.2 for k, s in shapes.items()}}, path
    )
    return path


@pytest.mark.parametrize(("size", "grid"), [((64, 64), (5, 5)), ((640, 640), (46, 46)), ((128, 64), (9, 5))])
def test_pictures_are_resized_to_whole_patches(facebook_file, size, grid):
    teacher = vit_teacher(facebook_file, n_levels=3)
    maps = teacher.maps(torch.rand(1, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(1, 64, *grid)] * 3 and teacher.channels == (64,) * 3


def test_vit_sees_smaller_pictures_if_asked(facebook_file):
    assert vit_teacher(facebook_file, 1, side_px=56).maps(torch.rand(1, 3, 128, 64))[0].shape[2:] == (4, 2)


def test_features_move_with_the_picture(facebook_file):
    """A bright spot in the right half changes the features of the right half most: nothing is cropped or transposed."""
    teacher = vit_teacher(facebook_file, 1, block=1)
    dark = torch.full((1, 3, 140, 280), 0.5)
    bright = dark.clone()
    bright[:, :, 20:50, 220:250] = 1.0
    change = (teacher.maps(bright)[0] - teacher.maps(dark)[0]).abs().sum(1)[0]
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert change.shape == (10, 20) and row in (1, 2, 3) and column in (15, 16, 17)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read"),
        (b"text", "cannot be read"),
        ({"a": torch.zeros(1)}, "holds no DINOv2"),
        ([1, 2], "no state dict"),
    ],
)
def test_files_that_are_no_vit(tmp_path, content, sentence):
    path = tmp_path / "vit.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ModelError, match=sentence):
        load_vit(path)
    with pytest.raises(ModelError, match="does not exist"):
        load_vit(tmp_path / "absent.safetensors")


def test_code_in_a_weight_file_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"model": Payload()}, tmp_path / "vit.pth")
    with pytest.raises(ModelError):
        load_vit(tmp_path / "vit.pth")
    assert not (tmp_path / "executed").exists()


def test_a_vit_is_read_three_quarters_deep(monkeypatch):
    from types import SimpleNamespace

    from edgekd.models import teachers

    read = []
    monkeypatch.setattr(teachers, "load_vit", lambda path: (nn.Identity(), SimpleNamespace(depth=12, width=8)))
    monkeypatch.setattr(
        teachers, "patch_features", lambda n, s, images, block, side: read.append(block) or torch.zeros(1, 8, 1, 1)
    )
    teachers.vit_teacher("a.safetensors", 2).maps(torch.rand(1, 3, 14, 14))
    teachers.vit_teacher("a.safetensors", 2, block=5).maps(torch.rand(1, 3, 14, 14))
    assert read == [9, 5]


def test_block_must_exist(facebook_file):
    with pytest.raises(ModelError, match="blocks 1 to 2"):
        vit_teacher(facebook_file, 1, block=3)


@pytest.fixture(scope="module", params=["yolo11n", "yolo11s"])
def detector(request) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(f"{request.param}.yaml", nc=3, verbose=False)


def test_levels_are_found_at_any_width(detector):
    names = ("C2", "C3", "C4", "C5", "P3", "P4", "P5")
    levels = {level.name: level for level in find_levels(detector, names)}
    assert [levels[name].stride_px for name in names] == [4, 8, 16, 32, 8, 16, 32]
    assert [levels[name].layer for name in names] == [2, 4, 6, 10, 16, 19, 22]
    scale = 2 if levels["P3"].channels == 128 else 1
    assert [levels[name].channels for name in names] == [s * scale for s in (64, 128, 128, 256, 64, 128, 256)]
    assert detector.training
    with pytest.raises(InputError, match="P6 was asked for"):
        find_levels(detector, ["P6"])


def test_capture_leaves_no_hook(detector):
    with capture(detector, [16]) as maps:
        detector(torch.zeros(1, 3, 64, 64))
    assert maps[16].shape[2:] == (8, 8)
    assert not any(module._forward_hooks for module in detector.modules())


def test_detector_teacher_predicts_what_the_detector_predicts(detector, tmp_path):
    from edgekd.train.checkpoint import plain_checkpoint, write_atomically

    detector.names = {0: "a", 1: "b", 2: "c"}
    write_atomically(tmp_path / "t.pt", plain_checkpoint(detector, {}, {}))
    teacher = detector_teacher(tmp_path / "t.pt", ("P3", "P4", "P5"))
    images = torch.rand(1, 3, 64, 64)
    maps = teacher.maps(images)
    expected = teacher.network(images)[1]
    torch.testing.assert_close(predict(teacher.head, maps)["scores"], expected["scores"])
    assert teacher.class_names == ("a", "b", "c") and teacher.strides_px == (8.0, 16.0, 32.0)
    assert detector_teacher(tmp_path / "t.pt", ("C5", "P4")).head is None
    assert not any(p.requires_grad for p in teacher.network.parameters()) and not maps[0].requires_grad


def test_oriented_heads_give_their_angle():
    from ultralytics.nn.modules.head import OBB

    head = OBB(nc=4, ne=1, ch=(8, 8, 8)).eval()
    predictions = predict(head, [torch.rand(2, 8, size, size) for size in (8, 4, 2)])
    assert {name: tuple(t.shape) for name, t in predictions.items()} == {
        "boxes": (2, 64, 84), "scores": (2, 4, 84), "angle": (2, 1, 84),
    }  # fmt: skip


def test_any_module_is_frozen_and_stays_outside_the_student():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout()).train()
    teacher = module_teacher(nn.Sequential(network), (4,))
    assert not any(p.requires_grad for p in network.parameters()) and not network.training
    assert not isinstance(teacher, nn.Module) and isinstance(teacher, Teacher)
    student = nn.Module()
    student.teacher = teacher
    assert not list(student.parameters())


@pytest.mark.assets
def test_the_real_vit_separates_what_it_sees():
    assets = os.environ.get("EDGEKD_ASSETS")
    if assets is None:
        pytest.skip("EDGEKD_ASSETS is not set")
    teacher = vit_teacher(Path(assets) / "assets" / "dinov2_vits14_derived.safetensors", 1, side_px=224)
    picture = torch.zeros(1, 3, 224, 224)
    picture[:, :, :, 112:] = torch.rand(1, 3, 224, 112, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(teacher.maps(picture)[0][0].flatten(1), dim=0)
    left = torch.arange(256) % 16 < 7
    right = torch.arange(256) % 16 > 8
    same = (features[:, left].T @ features[:, left]).mean()
    other = (features[:, left].T @ features[:, right]).mean()
    assert same > other + 0.1
