"""The NumPy MLP computes what torch computes: values, J v and Jᵀu."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_trpo.actor.mlp import Mlp, ParameterViews, why_not_mlp

ACTIVATIONS = [nn.Tanh, nn.ReLU, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.Mish, nn.Softsign, nn.Identity]
SLOPED = [nn.Tanh, nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Identity]
HIDDEN: list[list[int]] = [[], [5], [6, 4]]


def make(activation: type[nn.Module], hidden: list[int]) -> tuple[nn.Sequential, Mlp, th.Tensor]:
    th.manual_seed(1)
    modules: list[nn.Module] = []
    n_in = 3
    for size in hidden:
        modules += [nn.Linear(n_in, size), activation()]
        n_in = size
    modules.append(nn.Linear(n_in, 2))
    assert why_not_mlp(modules) is None
    return nn.Sequential(*modules), Mlp(modules), th.randn(11, 3)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_are_torchs(activation: type[nn.Module], hidden: list[int]) -> None:
    net, mlp, x = make(activation, hidden)
    np.testing.assert_allclose(mlp(x.numpy()), net(x).detach().numpy(), atol=1e-5)
    trace = mlp.trace(x.numpy())
    np.testing.assert_array_equal(trace[-1], mlp(x.numpy()))
    assert len(trace) == len(hidden) + 2
    assert mlp.n_out == 2
    assert mlp.differentiable is (activation in SLOPED or not hidden)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # a warning of torch.func
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("activation", SLOPED)
def test_jacobian_products_are_torchs(activation: type[nn.Module], hidden: list[int]) -> None:
    net, mlp, x = make(activation, hidden)
    trace = mlp.trace(x.numpy())
    names = [name for name, _ in net.named_parameters()]
    parameters = tuple(net.parameters())
    tangents = tuple(th.randn_like(p) for p in parameters)

    def of(*values: th.Tensor) -> Any:
        return th.func.functional_call(net, dict(zip(names, values, strict=True)), x)

    expected = th.func.jvp(of, parameters, tangents)[1]
    np.testing.assert_allclose(mlp.jvp(trace, [t.numpy() for t in tangents]), expected.detach().numpy(), atol=1e-5)

    cotangent = th.randn(11, 2)
    gradients = th.autograd.grad(net(x), parameters, cotangent)
    out = [np.full(p.shape, np.nan, dtype=np.float32) for p in parameters]
    mlp.vjp(trace, cotangent.numpy(), out)
    for mine, theirs in zip(out, gradients, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4, rtol=1e-4)


def test_parameters_are_views() -> None:
    net, mlp, x = make(nn.Tanh, [5])
    with th.no_grad():
        for parameter in net.parameters():
            parameter.data.mul_(2.0)
    np.testing.assert_allclose(mlp(x.numpy()), net(x).detach().numpy(), atol=1e-5)


def test_refresh_finds_replaced_parameters() -> None:
    net, mlp, x = make(nn.Tanh, [5])
    net[0].weight = nn.Parameter(th.randn(5, 3))
    net[2].bias.data = th.randn(2)
    mlp.refresh()
    np.testing.assert_allclose(mlp(x.numpy()), net(x).detach().numpy(), atol=1e-5)
    assert mlp.parameters[0] is net[0].weight


class Away(th.Tensor):
    """A tensor that says that it is not on the CPU."""

    @property
    def device(self) -> th.device:  # type: ignore[override]
        return th.device("cuda")


def test_refresh_finds_what_data_changed_on_another_device() -> None:
    weight, bias = th.randn(2, 3).as_subclass(Away), th.randn(2).as_subclass(Away)
    views = ParameterViews([({"weight": weight}, "weight"), ({"bias": bias}, "bias")])
    weight.data.add_(1.0)
    bias.data.mul_(3.0)
    views.refresh()
    for array, tensor in zip(views.arrays, (weight, bias), strict=True):
        np.testing.assert_array_equal(array, tensor.as_subclass(th.Tensor).numpy())


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ([nn.Tanh(), nn.Linear(3, 2)], "Tanh where a Linear"),
        ([nn.Linear(3, 3), nn.Linear(3, 2)], "Linear where a known activation"),
        ([nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2)], "LayerNorm where a known activation"),
        ([nn.Linear(3, 3), nn.Tanh()], "end with a Linear"),
        ([], "end with a Linear"),
        ([nn.Linear(3, 2, bias=False)], "no bias"),
        ([nn.Linear(3, 2).double()], "not float32"),
        ([nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))], "ParametrizedLinear"),
    ],
)
def test_other_networks_are_left_to_torch(modules: list[nn.Module], reason: str) -> None:
    assert reason in (why_not_mlp(modules) or "")


@pytest.mark.parametrize("module", [nn.ELU(-1.0), nn.LeakyReLU(-0.5)])
def test_activations_whose_slope_needs_the_input_are_left_to_torch(module: nn.Module) -> None:
    mlp = Mlp([nn.Linear(3, 4), module, nn.Linear(4, 2)])
    assert not mlp.differentiable
