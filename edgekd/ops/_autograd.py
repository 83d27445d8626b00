"""The Haar arithmetic with derivatives of any order: what the public functions call after their checks.

The transform and its adjoint are each other's derivative. The loss differentiates into `loss_gradient`, which is linear
in (student - teacher) and therefore differentiates into itself.

Compilers, tracers, profilers and modes see the operators of `_library`. Without one of them the kernels are called at
once: the dispatcher's way through Python costs a small map more than its arithmetic, most of all when large maps have
taken the caches.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from edgekd.ops._library import (
    compute_analysis,
    compute_gradient,
    compute_loss,
    compute_synthesis,
    haar_analysis,
    haar_synthesis,
    haar_weighted_mse,
    haar_weighted_mse_gradient,
)
from edgekd.ops._reference import HaarBands

PLAIN_TYPES = frozenset((Tensor, torch.nn.Parameter, type(None)))


def analysis(x: Tensor, replicate: bool, backend: str) -> HaarBands:
    """Transform x (N, C, H, W) into four bands; beyond an odd edge stands zero or (replicate) the last line again."""
    if _is_watched(x):
        return HaarBands(*haar_analysis(x, replicate, backend))
    if not _is_differentiated(x):
        return compute_analysis(x, replicate, backend)
    return HaarBands(*_Analysis.apply(compute_analysis, x, replicate, backend))


def synthesis(bands: list[Tensor], height: int, width: int, replicate: bool, backend: str) -> Tensor:
    """Return the adjoint of `analysis`: bands -> (N, C, height, width)."""
    if _is_watched(*bands):
        return cast(Tensor, haar_synthesis(bands, height, width, replicate, backend))
    if not _is_differentiated(*bands):
        return compute_synthesis(bands, height, width, replicate, backend)
    return cast(Tensor, _Synthesis.apply(compute_synthesis, (height, width, replicate, backend), *bands))


def loss(
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    with_gradient: bool,
    backend: str,
) -> Tensor:
    """Return the loss with weights [low, high]; with_gradient makes its gradient in the same pass."""
    options = weights, with_gradient, backend
    if _is_watched(student, teacher, cell_weight):
        return cast(Tensor, haar_weighted_mse(student, teacher, cell_weight, *options)[0])
    if not _is_differentiated(student, teacher):
        return compute_loss(student, teacher, cell_weight, *options)[0]
    return cast(Tensor, _Loss.apply(compute_loss, options, student, teacher, cell_weight)[0])


def loss_gradient(
    grad_output: Tensor,
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    backend: str,
) -> Tensor:
    """Return grad_output times the gradient of the loss with respect to student."""
    maps = grad_output, student, teacher, cell_weight
    if _is_watched(*maps):
        return cast(Tensor, haar_weighted_mse_gradient(*maps, weights, backend))
    return cast(Tensor, _Gradient.apply(compute_gradient, (weights, backend), *maps))


def _is_watched(*tensors: Tensor | None) -> bool:
    """Say whether something expects operators: a compiler, tracer, mode, transform, profiler or a tensor's class."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch.autograd._profiler_enabled()
        or not PLAIN_TYPES.issuperset(map(type, tensors))
    )


def _is_differentiated(*tensors: Tensor) -> bool:
    """Say whether a derivative may be asked for; in forward mode always, which the functions below refuse."""
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


class _Analysis(Function):
    """x -> four bands; its derivative is `synthesis`."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], x: Tensor, replicate: bool, backend: str) -> Any:
        ctx.options = (*x.shape[2:], replicate, backend)
        return compute(x, replicate, backend)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, synthesis(list(grads), *ctx.options), None, None


class _Synthesis(Function):
    """Four bands -> x; its derivative is `analysis`. options: height, width, replicate, backend."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], options: tuple[Any, ...], *bands: Tensor) -> Any:
        ctx.replicate, ctx.backend = options[2:]
        return compute(list(bands), *options)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, None, *analysis(grads[0], ctx.replicate, ctx.backend)


class _Loss(Function):
    """student, teacher, cell_weight -> loss, gradient. options: weights, with_gradient, backend."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], options: tuple[Any, ...], *maps: Tensor | None) -> Any:
        value, gradient = compute(*maps, *options)
        ctx.weights, ctx.has_gradient, ctx.backend = options
        ctx.mark_non_differentiable(gradient)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*maps, gradient)
        return value, gradient

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        grad_loss = grads[0]
        if grad_loss is None:
            return (None,) * 5
        student, teacher, cell_weight, gradient = ctx.saved_tensors
        if ctx.has_gradient and not torch.is_grad_enabled():  # enabled only for a second derivative
            grad = _scaled(gradient, grad_loss)
        else:
            grad = loss_gradient(grad_loss, student, teacher, cell_weight, ctx.weights, ctx.backend)
        return None, None, grad, -grad if ctx.needs_input_grad[3] else None, None


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return gradient * factor, for loss.backward() (factor 1) without another pass over memory."""
    if not _is_watched(factor) and factor.item() == 1.0:
        return gradient
    return gradient * factor


class _Gradient(Function):
    """grad_output, student, teacher, cell_weight -> gradient. options: weights, backend.

    With A the linear map (student - teacher) -> gradient: d(go A e).v = (v.A e) dgo + go (A v).de, A symmetric.
    """

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], options: tuple[Any, ...], *maps: Tensor | None) -> Any:
        ctx.options = options
        ctx.save_for_backward(*maps)
        return compute(*maps, *options)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_output, student, teacher, cell_weight = ctx.saved_tensors
        direction = grads[0]
        grad_of_grad_output = None
        if ctx.needs_input_grad[2]:
            one = torch.ones_like(grad_output)
            unit = loss_gradient(one, student, teacher, cell_weight, *ctx.options)
            grad_of_grad_output = (unit.to(one.dtype) * direction.to(one.dtype)).sum()
        zero = torch.zeros_like(direction)
        grad_student = loss_gradient(grad_output, direction, zero, cell_weight, *ctx.options)
        return None, None, grad_of_grad_output, grad_student, -grad_student, None


def _below_autograd(operator: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return call


def _analysis_operator(x: Tensor, replicate: bool, backend: str) -> Any:
    return _Analysis.apply(_below_autograd(haar_analysis), x, replicate, backend)


def _synthesis_operator(bands: list[Tensor], *options: Any) -> Any:
    return _Synthesis.apply(_below_autograd(haar_synthesis), options, *bands)


def _loss_operator(student: Tensor, teacher: Tensor, cell_weight: Tensor | None, *options: Any) -> Any:
    return _Loss.apply(_below_autograd(haar_weighted_mse), options, student, teacher, cell_weight)


def _gradient_operator(
    grad_output: Tensor, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, *options: Any
) -> Any:
    maps = grad_output, student, teacher, cell_weight
    return _Gradient.apply(_below_autograd(haar_weighted_mse_gradient), options, *maps)


torch.library.impl("edgekd::haar_analysis", "Autograd", _analysis_operator)
torch.library.impl("edgekd::haar_synthesis", "Autograd", _synthesis_operator)
torch.library.impl("edgekd::haar_weighted_mse", "Autograd", _loss_operator)
torch.library.impl("edgekd::haar_weighted_mse_gradient", "Autograd", _gradient_operator)
