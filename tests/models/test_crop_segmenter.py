"""The crop segmenter: shapes, cost, checkpoints, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from crop_nets import TINY, tiny_net

from edgekd.errors import ModelError
from edgekd.models.crop_segmenter import (
    SIZES,
    CropSegmenter,
    CropSize,
    checkpoint_of,
    is_crop_checkpoint,
    load_crop_segmenter,
)


def test_crops_become_logits_and_a_predicted_iou() -> None:
    crops = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    logits, predicted_iou = tiny_net()(crops)
    assert logits.shape == (3, 32, 32) and logits.dtype == torch.float32
    assert predicted_iou.shape == (3,) and bool(((predicted_iou > 0) & (predicted_iou < 1)).all())


def test_a_crop_does_not_see_its_neighbours() -> None:
    net, crops = tiny_net(), torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    torch.testing.assert_close(net(crops[1:2])[0], net(crops)[0][1:2], atol=1e-5, rtol=0)


def test_the_size_for_most_uses_costs_what_it_promises() -> None:
    net, flops = CropSegmenter(SIZES["M"]).eval(), 0
    assert 1.5e6 < sum(p.numel() for p in net.parameters()) < 1.8e6

    def count(module: torch.nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
        nonlocal flops
        flops += 2 * output[0].numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)  # type: ignore[arg-type]
    net(torch.zeros(1, 96, 96, 3, dtype=torch.uint8))
    assert flops < 0.5e9


def test_the_error_of_the_predicted_iou_leaves_the_mask_alone() -> None:
    net = tiny_net().train()
    net(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))[1].sum().backward()
    assert net.quality[0].weight.grad is not None
    assert all(p.grad is None for name, p in net.named_parameters() if not name.startswith("quality"))


def test_a_checkpoint_makes_the_same_network(tmp_path: Path) -> None:
    net, path = tiny_net(), tmp_path / "crop.pth"
    torch.save(checkpoint_of(net, ("ship",)), path)
    crops = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    again = load_crop_segmenter(path)
    assert again.size == TINY and is_crop_checkpoint(path)
    assert torch.equal(again(crops)[0], net(crops)[0])


def test_other_files_are_one_sentence(tmp_path: Path) -> None:
    torch.save({"model": 1}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    assert not is_crop_checkpoint(tmp_path / "other.pth") and not is_crop_checkpoint(tmp_path / "text.pth")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(ModelError, match="is not a checkpoint of the crop segmenter"):
            load_crop_segmenter(tmp_path / name)
    with pytest.raises(ModelError, match="does not exist"):
        load_crop_segmenter(tmp_path / "absent.pth")
    with pytest.raises(ModelError, match="expected a multiple of 16"):
        CropSegmenter(CropSize("odd", 40, (8, 8, 8, 8)))
