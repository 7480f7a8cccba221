"""The convolutional network computes what torch computes: values, J v and Jᵀu."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_trpo.actor.cnn import Cnn, why_not_cnn
from sb3_trpo.policies.image_normalization import ImageNormalization

NETWORKS: dict[str, list[nn.Module]] = {
    "like NatureCNN": [
        nn.Conv2d(2, 5, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 3 * 2, 7),
        nn.ReLU(),
        nn.Linear(7, 3),
    ],
    "padded, dilated, in groups, with tanh": [
        nn.Conv2d(2, 4, 3, padding=(1, 2), dilation=2),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 9 * 9, 3),
    ],
    "one convolution": [nn.Conv2d(2, 3, (12, 10)), nn.Flatten()],
    "normalised images": [
        ImageNormalization((2, 12, 10), 5),
        nn.Conv2d(2, 5, 4, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 5 * 4, 3),
    ],
}
NETWORKS["normalised images"][0](th.rand(5, 2, 12, 10))


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Sequential, Cnn, np.ndarray, th.Tensor]:
    modules = NETWORKS[request.param]
    assert why_not_cnn(modules) is None
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 12, 10), dtype=np.uint8)
    return nn.Sequential(*modules).eval(), Cnn(modules, scale=255.0), images, th.from_numpy(images).float() / 255.0


def test_values_are_torchs(case: Any) -> None:
    net, cnn, images, x = case
    before = images.copy()
    np.testing.assert_allclose(cnn(images), net(x).detach().numpy(), atol=1e-5)
    trace = cnn.trace(images)
    np.testing.assert_array_equal(trace[-1], cnn(images))
    np.testing.assert_array_equal(images, before)
    assert cnn.n_out == 3


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # a warning of torch.func
def test_jacobian_products_are_torchs(case: Any) -> None:
    net, cnn, images, x = case
    names, parameters = zip(*net.named_parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in zip(cnn.parameters, parameters, strict=True))
    tangents = tuple(th.randn_like(p) for p in parameters)
    trace = cnn.trace(images)

    def of(*values: th.Tensor) -> Any:
        return th.func.functional_call(net, dict(zip(names, values, strict=True)), x)

    expected = th.func.jvp(of, parameters, tangents)[1]
    np.testing.assert_allclose(cnn.jvp(trace, [t.numpy() for t in tangents]), expected.detach().numpy(), atol=1e-5)

    cotangent = th.randn(9, 3)
    gradients = th.autograd.grad(net(x), parameters, cotangent)
    for _ in range(2):  # a product leaves the trace as it was
        out = [np.full(p.shape, np.nan, dtype=np.float32) for p in parameters]
        cnn.vjp(trace, cotangent.numpy(), out)
        for mine, theirs in zip(out, gradients, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4, rtol=1e-4)


def test_replaced_parameters_are_found(case: Any) -> None:
    net, cnn, images, x = case
    convolution = next(module for module in net if isinstance(module, nn.Conv2d))
    convolution.weight = nn.Parameter(th.randn_like(convolution.weight))
    cnn.refresh()
    np.testing.assert_allclose(cnn(images), net(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ([nn.Linear(3, 2)], "begins with Linear"),
        ([ImageNormalization((1, 4, 4), 1), nn.Linear(3, 2)], "begins with Linear"),
        ([ImageNormalization((1, 4, 4), 1)], "begins with nothing"),
        ([nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Tanh(), nn.Linear(32, 3)], "a Tanh follows a Tanh"),
        ([nn.Conv2d(1, 2, 3), ImageNormalization((2, 4, 4), 1)], "ImageNormalization"),
        ([nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)], "BatchNorm2d"),
        ([nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)], "MaxPool2d"),
        ([nn.Conv2d(1, 2, 3, padding="same")], "does not pad"),
        ([nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")], "does not pad"),
        ([nn.Conv2d(1, 2, 3, bias=False)], "no bias"),
        ([nn.Conv2d(1, 2, 3).double()], "float64"),
        ([nn.Conv2d(1, 2, 3), nn.Flatten(2)], "Flatten"),
        ([nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))], "ParametrizedConv2d"),
    ],
)
def test_other_networks_are_left_to_torch(modules: list[nn.Module], reason: str) -> None:
    assert reason in (why_not_cnn(modules) or "")
