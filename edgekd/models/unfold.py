"""The shipped graphs turned back into checkpoints that can be trained, exported and combined with others.

A name goes in (`yolo11n-nwpu`, `tinysam-nwpu`), a PyTorch network comes out that computes what the shipped ONNX
computes. Export had folded every batch norm into its convolution; here each norm returns with the statistics of what
it normalised (`norms.npz`, measured on the training pictures), and a scale that undoes them: in evaluation the network
is the shipped one, and in training its norms see what they expect.

What the shipped graphs never held begins at zero: TinySAM's embeddings of single points (its graph is prompted with
boxes), its mask input for no mask, and its fourth mask, which nothing reads.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.errors import BackendUnavailable, ModelError
from edgekd.model_set import read_model_set
from edgekd.models.architecture import build_detector, read_architecture
from edgekd.models.tinysam import TinySam
from edgekd.package_files import default_models

NORMS = Path(__file__).parent / "norms.npz"
"""`<stage>/<norm>/mean` and `/var`, float16 (channels,): the inputs of every norm on the training pictures."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_HEAD = 23
"""The layer of YOLO11n that is its head."""


@dataclass(frozen=True)
class FoldedGraph:
    """Constants of an exported graph.

    Attributes:
        constants: by name, float32 where they were float16; `_fp16` is cut off the names.
        linear: weights (out, in) of linear layers by the name of their module; the graph holds them transposed.
    """

    constants: dict[str, Tensor]
    linear: dict[str, Tensor]


def read_constants(path: Path) -> FoldedGraph:
    """The constants of an ONNX graph written by `edgekd export`.

    Raises:
        BackendUnavailable: onnx is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as reason:
        raise BackendUnavailable(
            "reading the shipped graphs needs onnx, which is not installed; pip install 'edgekd[build]'"
        ) from reason
    graph = onnx.load(path).graph
    constants = {}
    for initializer in graph.initializer:
        value = numpy_helper.to_array(initializer)
        name = initializer.name.removesuffix("_fp16")
        constants[name] = torch.from_numpy(value.astype(np.float32) if value.dtype == np.float16 else value.copy())
    linear = {}
    for node in graph.node:
        scopes: list[str] = next((ast.literal_eval(p.value) for p in node.metadata_props if p.key == _SCOPES), [])
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and weight.ndim == 2 and len(scopes) > 1:
            linear[scopes[-2]] = weight.T.contiguous()
    return FoldedGraph(constants, linear)


def shipped_detector() -> nn.Module:
    """The shipped YOLO11n as an Ultralytics `DetectionModel` that can be trained, float32, in eval mode.

    Raises: as `folded_detector`.
    """
    model = folded_detector()
    _restore_statistics(model, "detector")
    return model


def shipped_segmenter() -> TinySam:
    """The shipped TinySAM, ready to be trained, in eval mode; see the module for what its graph does not hold.

    Raises: as `folded_detector`.
    """
    model = folded_segmenter()
    _restore_statistics(model.image_encoder, "encoder")
    return model


def folded_detector() -> nn.Module:
    """The shipped YOLO11n with norms that only add: right in evaluation, unfit for training.

    Raises:
        ModelError: the shipped graph is another one than this version unfolds.
        BackendUnavailable: onnx is not installed.
    """
    folder = default_models()
    model_set = read_model_set(folder)
    names = model_set.pipeline.class_names
    graph = read_constants(folder / model_set.stages["detector"].file)
    constants = {name.replace(".head.", ".").removeprefix("model."): value for name, value in graph.constants.items()}
    width = int(constants[f"model.{_HEAD}.cv3.0.2.weight"].shape[1])
    model = build_detector(read_architecture("yolo11n.yaml"), len(names), width, "yolo11n.yaml")
    with torch.no_grad():
        for name, norm, convolution in _norms(model, "conv", "bn"):
            _unfold(convolution, norm, constants.pop(f"{name}.conv.weight"), constants.pop(f"{name}.conv.bias"))
        for name, parameter in model.named_parameters():
            if name in constants and constants[name].shape == parameter.shape:
                parameter.copy_(constants.pop(name))
    left = [name for name in constants if name.startswith("model.")]
    _refuse_rest(left, "detector")
    model.names = dict(enumerate(names))
    model.yaml = {name: value for name, value in model.yaml.items() if name != "yaml_file"}
    return model.float().eval()  # type: ignore[no-any-return]


def folded_segmenter() -> TinySam:
    """The shipped TinySAM with norms that only add. Raises: as `folded_detector`."""
    folder = default_models()
    stages = read_model_set(folder).stages
    model = TinySam(draws_prompts=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        _fill_encoder(model.image_encoder, read_constants(folder / stages["encoder"].file))
        _fill_decoder(model, read_constants(folder / stages["decoder"].file))
    model.eval()
    return model


def _fill_encoder(encoder: nn.Module, graph: FoldedGraph) -> None:
    constants = dict(graph.constants)
    for name, norm, convolution in _norms(encoder, "conv", "bn"):
        weight = f"{name}.conv.weight"
        _unfold(convolution, norm, constants.pop(weight), constants.pop(f"{weight}_bias"))
    blocks = [(name, m) for name, m in encoder.named_modules() if hasattr(m, "attention_biases")]
    for number, (name, attention) in enumerate(blocks):
        found = constants.pop(f"index{f'_{number}' if number else ''}", None)
        if found is None:  # kept as a table that is read by index, heads last
            table = _attention_table(constants, tuple(attention.attention_biases.shape), name)
            attention.attention_biases.copy_(table)
        else:
            indices = attention.attention_bias_idxs
            attention.attention_biases[:, indices.flatten()] = found.flatten(1)
    rest = _copy_by_name(encoder, FoldedGraph(constants, graph.linear))
    _refuse_rest(rest, "encoder")


def _attention_table(constants: dict[str, Tensor], shape: tuple[int, ...], name: str) -> Tensor:
    # The tables of one stage have one shape and follow each other in the graph's order.
    key = next((key for key, value in constants.items() if tuple(value.shape) == shape[::-1]), None)
    if key is None:
        raise ModelError(f"the shipped encoder holds no attention biases for {name}; install edgekd again")
    return constants.pop(key).T


def _fill_decoder(model: TinySam, graph: FoldedGraph) -> None:
    c = dict(graph.constants)
    prompts, decoder = model.prompt_encoder, model.mask_decoder
    frequencies = c.pop("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")
    prompts.pe_layer.positional_encoding_gaussian_matrix.copy_(_unrounded(frequencies, c.pop("mul_1") / (4 * math.pi)))
    for label, row in zip((2, 3), c.pop("embedding")[0], strict=True):
        prompts.get_submodule(f"point_embeddings.{label}").weight.copy_(row[None])  # type: ignore[operator]
    own = c.pop("cat_5")
    decoder.iou_token.weight.copy_(own[:1])
    decoder.mask_tokens.weight.copy_(own[1:])
    prompts.mask_downscaling[6].weight.copy_(c.pop("permute_5").T[:, :, None, None])
    for number, (bias, weight) in enumerate((("view_17", "permute_7"), ("view_35", "permute_8"))):
        attention: Any = decoder.get_submodule(f"transformer.layers.{number}.cross_attn_image_to_token")
        attention.q_proj.bias.copy_(c.pop(bias).flatten())
        attention.out_proj.weight.copy_(c.pop(weight).T)
    first, second = decoder.output_upscaling[0], decoder.output_upscaling[3]
    first.weight.copy_(c.pop("permute_9").permute(3, 2, 0, 1))
    first.bias.copy_(c.pop("cat_8")[: len(first.bias)])  # type: ignore[arg-type]
    second.weight.copy_(c.pop("val_497").T.unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1))
    second.bias.copy_(c.pop("cat_9")[: len(second.bias)])  # type: ignore[arg-type]
    _refuse_rest(_copy_by_name(model, FoldedGraph(c, graph.linear)), "decoder")


def _unrounded(rounded: Tensor, hint: Tensor) -> Tensor:
    """The value nearest to `hint` that float16 rounds to `rounded`: the graph holds a matrix twice, once times 4 pi.

    Exported again with weights stored as float16, both come out as they were.
    """
    halves = rounded.half()
    above, below = (torch.nextafter(halves, halves.new_full((), end)).float() for end in (float("inf"), -float("inf")))
    low, high = (rounded + 0.499 * (rounded - below) * -1), (rounded + 0.499 * (above - rounded))
    return torch.maximum(torch.minimum(hint, high), low)


def _copy_by_name(model: nn.Module, graph: FoldedGraph) -> list[str]:
    """Copy what is called as a parameter of `model`; returns the parameters of the graph that found no place."""
    parameters = dict(model.named_parameters())
    placed = set()
    for name, value in graph.constants.items():
        if name in parameters and parameters[name].shape == value.shape:
            parameters[name].copy_(value)
            placed.add(name)
    for module, value in graph.linear.items():
        name = f"{module}.weight"
        if name in parameters and name not in placed and parameters[name].shape == value.shape:
            parameters[name].copy_(value)
    return [name for name in graph.constants if name.endswith((".weight", ".bias")) and name not in placed]


def _norms(model: nn.Module, convolution: str, norm: str) -> Iterator[tuple[str, nn.BatchNorm2d, nn.Conv2d]]:
    """Every module that is a convolution with its batch norm: its name and both."""
    for name, module in model.named_modules():
        found = getattr(module, norm, None)
        if isinstance(found, nn.BatchNorm2d):
            yield name, found, getattr(module, convolution)


def _unfold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor) -> None:
    """A convolution with bias becomes the convolution alone and a norm that adds the bias: variance 1, mean 0."""
    convolution.weight.copy_(weight)
    norm.running_mean.zero_()  # type: ignore[union-attr]
    norm.running_var.fill_(1.0 - norm.eps)  # type: ignore[union-attr]
    norm.weight.fill_(1.0)
    norm.bias.copy_(bias)


def _restore_statistics(model: nn.Module, stage: str) -> None:
    """Give every unfolded norm the statistics of what it sees; its function stays, y = x + bias."""
    if not NORMS.is_file():
        raise ModelError(f"{NORMS} is missing; install edgekd again")
    with np.load(NORMS) as file, torch.no_grad():
        for name, norm, _ in _norms(model, "conv", "bn"):
            mean, variance = (
                torch.from_numpy(file[f"{stage}/{name}.bn/{key}"].astype(np.float32)) for key in ("mean", "var")
            )
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)


def measure_norms(model: nn.Module, images: Tensor, stage: str) -> dict[str, NDArray[np.float32]]:
    """Mean and variance of every norm's input on pictures (N, 3, H, W); this is how `norms.npz` was made."""
    found: dict[str, NDArray[np.float32]] = {}
    handles = []
    for name, norm, _ in _norms(model, "conv", "bn"):

        def keep(_module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            flat = inputs[0].detach().float().transpose(0, 1).flatten(1)
            found[f"{stage}/{name}.bn/mean"] = flat.mean(dim=1).numpy()
            found[f"{stage}/{name}.bn/var"] = flat.var(dim=1).numpy()

        handles.append(norm.register_forward_pre_hook(keep))
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return found


def _refuse_rest(left: list[str], stage: str) -> None:
    if left:
        raise ModelError(
            f"the shipped {stage} holds {left[0]} and {len(left) - 1} more constants that this version does not know; "
            "install edgekd again"
        )
