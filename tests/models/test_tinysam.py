"""TinySAM: equal to the reference implementation, safe to load, and drawn prompts."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.prompt_decoder import BOX_LABELS, DRAWN_LOGIT, cut_to_boxes, draw_boxes, draw_points
from edgekd.models.tinysam import (
    N_OFFICIAL_KEYS,
    Prompt,
    PromptDecoder,
    TinySam,
    from_official,
    load_tinysam,
    official_state_dict,
    save_tinysam,
)

BOXES = torch.tensor([[10.0, 20.0, 200.0, 180.0], [300.0, 40.0, 340.0, 90.0], [0.0, 0.0, 512.0, 500.0]])


def shake(model: nn.Module) -> None:
    """Give batch norms and attention biases values that a wrong mapping would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        if hasattr(module, "attention_biases"):
            nn.init.normal_(module.attention_biases, std=0.5)


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    build = pytest.importorskip("ultralytics.models.sam.build")
    torch.manual_seed(0)
    model = build.build_mobile_sam()
    shake(model)
    return model.train().eval()


@pytest.fixture(scope="module")
def ours(reference: nn.Module) -> TinySam:
    return from_official(reference.state_dict())


def reference_decode(
    reference: nn.Module, image: Tensor, points: object, boxes: Tensor | None
) -> tuple[Tensor, Tensor]:
    sparse, dense = reference.prompt_encoder(points, boxes, None)
    positions = reference.prompt_encoder.get_dense_pe()
    masks, iou = reference.mask_decoder(image, positions, sparse, dense, multimask_output=True)
    best = iou.argmax(dim=1)
    return masks[torch.arange(len(best)), best], iou.amax(dim=1)


@torch.no_grad()
def test_the_encoder_equals_the_reference(reference: nn.Module, ours: TinySam) -> None:
    image = torch.randn(1, 3, 1024, 1024)  # the reference knows no other size
    expected = reference.image_encoder(image)
    assert expected.abs().max() > 1
    torch.testing.assert_close(ours.image_encoder(image), expected, rtol=0, atol=2e-5)
    assert (ours.image_encoder(image) - expected).abs().mean() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["box", "box+centre"])
def test_the_box_decoder_equals_the_reference(reference: nn.Module, ours: TinySam, prompt: Prompt) -> None:
    image = torch.randn(1, 256, 64, 64)
    centre = (BOXES[:, None, :2] + BOXES[:, None, 2:]) / 2
    points = (centre, torch.ones(3, 1)) if prompt == "box+centre" else None
    expected = reference_decode(reference, image, points, BOXES)
    assert expected[0].std() > 1e-2
    torch.testing.assert_close(PromptDecoder(ours, prompt)(image, BOXES), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_point_decoder_equals_the_reference(reference: nn.Module, ours: TinySam) -> None:
    image, coords, labels = torch.randn(1, 256, 64, 64), torch.rand(3, 2, 2) * 1000, torch.tensor([[1, 0]] * 3)
    found = PromptDecoder(ours).forward_points(image, coords, labels)
    torch.testing.assert_close(found, reference_decode(reference, image, (coords, labels), None), rtol=0, atol=1e-5)


def test_a_checkpoint_goes_out_and_back(tmp_path: Path, reference: nn.Module, ours: TinySam) -> None:
    assert len(official_state_dict(ours)) == N_OFFICIAL_KEYS
    reference.load_state_dict(official_state_dict(ours), strict=True)
    ours.draws_prompts = True
    save_tinysam(ours, tmp_path / "best.pt")
    ours.draws_prompts = False
    again = load_tinysam(tmp_path / "best.pt")
    assert again.draws_prompts and not again.training
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@torch.no_grad()
def test_loading_after_a_forward_leaves_no_stale_attention_bias() -> None:
    torch.manual_seed(1)
    model, trained, image = TinySam().eval(), TinySam().eval(), torch.randn(1, 3, 64, 64)
    shake(trained)
    model.image_encoder(image)  # eval mode keeps the gathered biases
    model.load_state_dict(trained.state_dict())
    torch.testing.assert_close(model.image_encoder(image), trained.image_encoder(image), rtol=0, atol=0)


@torch.no_grad()
def test_drawn_prompts_decode_as_the_reference_does() -> None:
    torch.manual_seed(2)
    model = TinySam(draws_prompts=True).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)  # biases that start at 0 would hide a forgotten one
    image, boxes = torch.randn(1, 256, 20, 32), BOXES / 2
    labels = torch.tensor([BOX_LABELS]).expand(len(boxes), -1)
    masks, iou = model.decode(image, boxes.unflatten(1, (2, 2)), labels, mask_input=draw_boxes(boxes, 80, 128))
    best = iou.argmax(dim=1)
    expected = cut_to_boxes(masks[torch.arange(len(best)), best], boxes), iou.amax(dim=1)
    assert masks.std() > 0.1
    torch.testing.assert_close(PromptDecoder(model)(image, boxes), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_any_multiple_of_32_fits() -> None:
    model = TinySam(draws_prompts=True).eval()
    embeddings = model.image_encoder(torch.randn(1, 3, 96, 160))
    assert embeddings.shape == (1, 256, 6, 10)
    masks, iou = PromptDecoder(model)(embeddings, BOXES / 4)
    assert masks.shape == (3, 24, 40) and iou.shape == (3,)


def test_a_drawn_box_covers_its_cells() -> None:
    drawn = draw_boxes(torch.tensor([[4.0, 4.0, 10.0, 8.0]]), 4, 4)
    share = (drawn / DRAWN_LOGIT + 1) / 2
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 1, 1:3] = torch.tensor([1.0, 0.5])
    torch.testing.assert_close(share, expected)


def test_only_foreground_points_are_drawn() -> None:
    coords = torch.tensor([[[8.0, 8.0], [56.0, 56.0]]])
    one = draw_points(coords, torch.tensor([[1, -1]]), 16, 16)
    both = draw_points(coords, torch.tensor([[1, 1]]), 16, 16)
    assert (one > 0).sum() == 16 and (both > 0).sum() == 32
    assert (draw_points(coords, torch.tensor([[0, -1]]), 16, 16) < 0).all()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tinysam.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a weights-only PyTorch checkpoint"):
        load_tinysam(path)


def test_a_pickled_module_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "tinysam_w8a8.pth")
    with pytest.raises(ModelError, match="plain state dict"):
        load_tinysam(tmp_path / "tinysam_w8a8.pth")


def test_another_model_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(ModelError, match="another model than TinySAM"):
        load_tinysam(tmp_path / "linear.pt")
    torch.save({"model": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(ModelError, match="instead of tensors"):
        load_tinysam(tmp_path / "list.pt")
    with pytest.raises(ModelError, match="does not exist, expected a checkpoint"):
        load_tinysam(tmp_path / "missing.pt")
