"""Who watches sees operators: profilers, tracers, modes and tensor classes; no derivative is dropped in silence."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.ops import HaarBands, haar_dwt2, haar_idwt2, haar_weighted_mse

OPERATORS = {"haar_analysis", "haar_synthesis", "haar_weighted_mse"}


def all_of_them(x):
    """Transform and back, then the loss against zero."""
    restored = haar_idwt2(haar_dwt2(x))
    return haar_weighted_mse(restored, torch.zeros_like(restored), 0.3, 1.7)


def test_the_profiler_names_the_operators(backend):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        all_of_them(torch.randn(1, 2, 4, 6))
    assert {f"edgekd::{name}" for name in OPERATORS} <= {event.key for event in profile.key_averages()}


def test_a_dispatch_mode_sees_the_operators_and_those_of_backward():
    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = set()

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            self.seen.add(operator.name())
            return operator(*args, **(kwargs or {}))

    x = torch.randn(1, 2, 4, 6, requires_grad=True)
    with Names() as names:
        (2 * all_of_them(x)).backward()
    assert {f"edgekd::{name}" for name in OPERATORS} <= names.seen


def test_a_traced_graph_has_the_operators():
    graph = make_fx(all_of_them)(torch.randn(1, 2, 4, 6))
    assert {f"edgekd.{name}.default" for name in OPERATORS} <= {str(node.target) for node in graph.graph.nodes}


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_torchscript_traces_the_operators():
    x = torch.randn(1, 2, 4, 6)
    traced = torch.jit.trace(all_of_them, x)
    assert all(f"edgekd::{name}" in str(traced.graph) for name in OPERATORS)
    other = torch.randn(1, 2, 4, 6)
    assert torch.equal(traced(other), all_of_them(other))


def test_fake_tensors_have_shapes_only():
    with FakeTensorMode() as mode:
        x = torch.empty(2, 3, 5, 6)
    bands = haar_dwt2(x)
    assert all(band.fake_mode is mode and band.shape == (2, 3, 3, 3) for band in bands)


def test_a_tensor_class_is_asked():
    class Loud(torch.Tensor):
        names: list[str] = []

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.names.append(str(function))
            return super().__torch_function__(function, types, args, kwargs or {})

    haar_dwt2(torch.randn(1, 2, 4, 6).as_subclass(Loud))
    assert any("haar_analysis" in name for name in Loud.names)


@pytest.mark.filterwarnings("ignore")  # forward mode itself compiles with TorchScript, which is deprecated
def test_other_kinds_of_differentiation_are_refused():
    x, tangent = torch.randn(2, 1, 2, 4, 6).unbind()
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(all_of_them)(x)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        haar_dwt2(forward_ad.make_dual(x, tangent))


def test_every_way_gives_the_same_gradient(backend):
    x = torch.randn(1, 2, 5, 6, requires_grad=True)

    def gradient():
        bands = haar_dwt2(x, "symmetric", backend)
        restored = haar_idwt2(HaarBands(*bands), (5, 6), backend)
        loss = haar_weighted_mse(restored, torch.zeros_like(restored), 0.3, 1.7, None, backend)
        return torch.autograd.grad(3 * loss, x)[0]

    at_once = gradient()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        as_operators = gradient()
    assert torch.equal(at_once, as_operators)
