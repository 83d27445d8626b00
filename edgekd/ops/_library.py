"""The Haar arithmetic as PyTorch operators `edgekd::*`: fake shapes for torch.compile, and autograd to any order.

The transform and its adjoint are each other's derivative. The loss differentiates into `haar_weighted_mse_gradient`,
which is linear in (student - teacher) and therefore differentiates into itself. Public functions: `edgekd.ops.haar`.
"""

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from edgekd.ops._dispatch import resolve_backend
from edgekd.ops._interface import BandWeights, Kernels


def _kernels(x: Tensor, backend: str) -> Kernels:
    name = resolve_backend(x.device.type, x.dtype, backend or None).name
    return cast(Kernels, import_module(f"edgekd.ops._{name}"))


def _analysis(x: Tensor, replicate: bool, backend: str) -> list[Tensor]:
    return _kernels(x, backend).analysis(x.contiguous(), replicate)


def _fake_analysis(x: Tensor, replicate: bool, backend: str) -> list[Tensor]:
    n, c, height, width = x.shape
    return [x.new_empty(n, c, (height + 1) // 2, (width + 1) // 2) for _ in range(4)]


def _synthesis(bands: list[Tensor], height: int, width: int, replicate: bool, backend: str) -> Tensor:
    whole = [band.contiguous() for band in bands]
    return _kernels(bands[0], backend).synthesis(whole, height, width, replicate)


def _fake_synthesis(bands: list[Tensor], height: int, width: int, replicate: bool, backend: str) -> Tensor:
    return bands[0].new_empty(bands[0].shape[0], bands[0].shape[1], height, width)


def _loss(
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    with_gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    pair = student.contiguous(), teacher.contiguous()
    return _kernels(student, backend).loss(*pair, cell_weight, BandWeights(*weights), with_gradient)


def _fake_loss(
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    with_gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    gradient = student.new_empty(student.shape) if with_gradient else student.new_empty(0)
    return student.new_empty((), dtype=loss_dtype(student)), gradient


def _gradient(
    grad_output: Tensor,
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    backend: str,
) -> Tensor:
    pair = student.contiguous(), teacher.contiguous()
    return _kernels(student, backend).loss_gradient(grad_output, *pair, cell_weight, BandWeights(*weights))


def _fake_gradient(
    grad_output: Tensor,
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    backend: str,
) -> Tensor:
    return student.new_empty(student.shape)


# x (N, C, H, W), replicate, backend -> the four bands
haar_analysis = torch.library.custom_op("edgekd::haar_analysis", _analysis, mutates_args=())
# bands, height, width, replicate, backend -> (N, C, height, width), the adjoint of haar_analysis
haar_synthesis = torch.library.custom_op("edgekd::haar_synthesis", _synthesis, mutates_args=())
# student, teacher, cell_weight, [low, high], with_gradient, backend -> loss, its gradient (or an empty tensor)
haar_weighted_mse = torch.library.custom_op("edgekd::haar_weighted_mse", _loss, mutates_args=())
# grad_output, student, teacher, cell_weight, [low, high], backend -> grad_output times that gradient
haar_weighted_mse_gradient = torch.library.custom_op("edgekd::haar_weighted_mse_gradient", _gradient, mutates_args=())


def loss_dtype(student: Tensor) -> torch.dtype:
    """Return the dtype of the loss: float64 for float64 maps, else float32."""
    return torch.float64 if student.dtype == torch.float64 else torch.float32


def _save_analysis(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, ctx.replicate, ctx.backend = inputs
    ctx.size = x.shape[2:]


def _differentiate_analysis(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    return haar_synthesis(grads, *ctx.size, ctx.replicate, ctx.backend), None, None


def _save_synthesis(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, _, ctx.replicate, ctx.backend = inputs


def _differentiate_synthesis(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return haar_analysis(grad, ctx.replicate, ctx.backend), None, None, None, None


def _save_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    student, teacher, cell_weight, ctx.weights, ctx.has_gradient, ctx.backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(student, teacher, cell_weight, output[1])


def _differentiate_loss(ctx: Any, grad_loss: Tensor | None, _: None) -> tuple[Any, ...]:
    if grad_loss is None:
        return (None,) * 6
    student, teacher, cell_weight, gradient = ctx.saved_tensors
    if ctx.has_gradient and not torch.is_grad_enabled():  # enabled only for a second derivative
        grad = _scaled(gradient, grad_loss)
    else:
        grad = haar_weighted_mse_gradient(grad_loss, student, teacher, cell_weight, ctx.weights, ctx.backend)
    return grad, -grad if ctx.needs_input_grad[1] else None, None, None, None, None


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return gradient * factor, for loss.backward() (factor 1) without another pass over memory."""
    if not torch.compiler.is_compiling() and factor.item() == 1.0:
        return gradient
    return gradient * factor


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_output, student, teacher, cell_weight, ctx.weights, ctx.backend = inputs
    ctx.save_for_backward(grad_output, student, teacher, cell_weight)


def _differentiate_gradient(ctx: Any, direction: Tensor) -> tuple[Any, ...]:
    """With A the linear map (student - teacher) -> gradient: d(go A e).v = (v.A e) dgo + go (A v).de, A symmetric."""
    grad_output, student, teacher, cell_weight = ctx.saved_tensors
    options = cell_weight, ctx.weights, ctx.backend
    grad_of_grad_output = None
    if ctx.needs_input_grad[0]:
        one = torch.ones_like(grad_output)
        unit = haar_weighted_mse_gradient(one, student, teacher, *options)
        grad_of_grad_output = (unit.to(one.dtype) * direction.to(one.dtype)).sum()
    zero = torch.zeros_like(direction)
    grad_student = haar_weighted_mse_gradient(grad_output, direction, zero, *options)
    return grad_of_grad_output, grad_student, -grad_student, None, None, None


haar_analysis.register_fake(_fake_analysis)
haar_synthesis.register_fake(_fake_synthesis)
haar_weighted_mse.register_fake(_fake_loss)
haar_weighted_mse_gradient.register_fake(_fake_gradient)
haar_analysis.register_autograd(_differentiate_analysis, setup_context=_save_analysis)
haar_synthesis.register_autograd(_differentiate_synthesis, setup_context=_save_synthesis)
haar_weighted_mse.register_autograd(_differentiate_loss, setup_context=_save_loss)
haar_weighted_mse_gradient.register_autograd(_differentiate_gradient, setup_context=_save_gradient)
