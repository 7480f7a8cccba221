"""The KL of nearly equal distributions keeps its digits in float32, and the whole update does."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trpo import TRPO
from sb3_trpo.distributions.clipped_gaussian import ClippedGaussian
from sb3_trpo.distributions.differences import expm1_minus, kl_terms
from sb3_trpo.distributions.discrete import Bernoulli, Categorical
from sb3_trpo.distributions.family import DistributionFamily, Parameters
from sb3_trpo.distributions.gaussian import Gaussian
from sb3_trpo.distributions.table import distribution_family
from tests.toy_envs import RandomEnv

Pair = tuple[Parameters, Parameters]


def exact_expm1_minus(d: float) -> float:
    x, term, total = Fraction(d), Fraction(1), Fraction(0)
    for k in range(1, 60):
        term = term * x / k
        total += term if k > 1 else 0
    return float(total)


@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float32, 3e-6), (th.float64, 1e-14)])
def test_expm1_minus_against_its_series_in_fractions(dtype: th.dtype, tolerance: float) -> None:
    sizes = [10.0**k for k in range(-12, 1)] + [0.0999, 0.1, 0.1001, 5.0]
    d = th.tensor([sign * size for size in sizes for sign in (-1.0, 1.0)], dtype=dtype)
    exact = th.tensor([exact_expm1_minus(x) for x in d.tolist()], dtype=th.float64)
    th.testing.assert_close(expm1_minus(d).double(), exact, rtol=tolerance, atol=0.0)
    assert expm1_minus(th.zeros(1)).item() == 0.0


def categorical(scale: float, dtype: th.dtype) -> Pair:
    old, change = th.randn(2, 500, 6, generator=th.Generator().manual_seed(0), dtype=th.float64)
    return ((3.0 * old).to(dtype),), ((3.0 * old).to(dtype) + (scale * change).to(dtype),)


def gaussian(scale: float, dtype: th.dtype) -> Pair:
    mean, log_std, *change = th.randn(4, 500, 2, generator=th.Generator().manual_seed(0), dtype=th.float64)
    old = (mean.to(dtype), (0.3 * log_std).exp().to(dtype))
    return old, tuple((part + scale * move).to(dtype) for part, move in zip(old, change, strict=True))


def in_float64(pair: Pair) -> Pair:
    return tuple(part.double() for part in pair[0]), tuple(part.double() for part in pair[1])


def from_logits(family: DistributionFamily, pair: Pair, dtype: th.dtype) -> th.Tensor:
    if isinstance(family, Categorical):
        pair = tuple(tuple(th.log_softmax(part.to(dtype), dim=1) for part in side) for side in pair)  # type: ignore[assignment]
    return family.kl_old_new(*pair)


FAMILIES: dict[str, tuple[DistributionFamily, Callable[[float, th.dtype], Pair]]] = {
    "categorical": (Categorical(), categorical),
    "bernoulli": (Bernoulli(), categorical),
    "gaussian": (Gaussian(), gaussian),
    "clipped": (ClippedGaussian(-th.ones(2), th.ones(2)), gaussian),
}


@pytest.mark.parametrize("kl", [1e-4, 1e-8, 1e-10])
@pytest.mark.parametrize("name", FAMILIES)
def test_mean_kl_of_a_tiny_step_in_float32_is_that_in_float64(name: str, kl: float) -> None:
    family, make = FAMILIES[name]
    pair = make(math.sqrt(kl), th.float32)
    single = from_logits(family, pair, th.float32).double().mean().item()
    double = from_logits(family, in_float64(pair), th.float64).mean().item()
    assert 0.1 * kl < double < 10.0 * kl
    assert single == pytest.approx(double, rel=0.01)
    assert not from_logits(family, (pair[0], pair[0]), th.float32).any()


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_float64_against_the_direct_sum_of_a_large_step(name: str) -> None:
    family, make = FAMILIES[name]
    old, new = (side[0] for side in make(2.0, th.float64))
    if name == "categorical":
        old, new = th.log_softmax(old, dim=1), th.log_softmax(new, dim=1)
        expected = (old.exp() * (old - new)).sum(dim=1)
    else:
        kl = th.distributions.kl_divergence(*(th.distributions.Bernoulli(logits=side) for side in (old, new)))
        expected = kl.sum(dim=1)
    th.testing.assert_close(family.kl_old_new((old,), (new,)), expected, rtol=1e-11, atol=1e-13)


def test_forbidden_outcomes() -> None:
    inf, half, third = math.inf, math.log(0.5), math.log(1.0 / 3.0)
    old = th.tensor([[half, half, -inf], [half, half, -inf], [half, half, -inf]])
    new = th.tensor([[half, half, -inf], [third, third, third], [0.0, -inf, -inf]])
    kl = kl_terms(old, new).sum(dim=1)
    th.testing.assert_close(kl, th.tensor([0.0, math.log(1.5), inf]))
    assert kl_terms(th.tensor([[-200.0]]), th.tensor([[-inf]])).item() == inf  # exp(-200) is 0 in float32


def test_outcome_that_was_nearly_impossible_does_not_overflow() -> None:
    old = th.log_softmax(th.tensor([[200.0, 0.0]]), dim=1)
    new = th.log_softmax(th.tensor([[0.0, 0.0]]), dim=1)
    th.testing.assert_close(kl_terms(old, new).sum(), th.tensor(math.log(2.0)))
    th.testing.assert_close(kl_terms(new, old).sum(), th.tensor(100.0 - math.log(2.0)))


def test_derivatives_are_finite_beside_forbidden_outcomes() -> None:
    logits = th.tensor([[0.3, -th.inf, 0.1, 90.0]], dtype=th.float64)
    new = th.tensor([[0.4, -th.inf, 5.0, -1.0]], dtype=th.float64, requires_grad=True)
    kl = kl_terms(th.log_softmax(logits, dim=1), th.log_softmax(new, dim=1)).sum()
    (gradient,) = th.autograd.grad(kl, new)
    assert gradient[:, [0, 2, 3]].isfinite().all()
    th.testing.assert_close(gradient[0, 3], (th.softmax(new, 1) - th.softmax(logits, 1))[0, 3].detach())


SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1.0, 1.0, (2,), dtype=np.float32),
}


@pytest.mark.parametrize("kind", [*SPACES, "clipped"])
def test_update_with_a_tiny_bound_logs_the_kl_and_keeps_the_bound(kind: str) -> None:
    space = SPACES.get(kind, SPACES["box"])
    model = TRPO(
        "MlpPolicy",
        RandomEnv(action_space=space),
        n_steps=512,
        batch_size=512,
        target_kl=1e-8,
        n_critic_updates=0,
        seed=0,
        device="cpu",
        clipped_gaussian=kind == "clipped",
    )

    def parameters() -> Parameters:
        observations = th.as_tensor(model.rollout_buffer.observations.reshape(512, -1)).double()
        policy = model.policy.double()  # SB3 would cast the observations to float32
        distribution = policy._get_action_dist_from_latent(policy.mlp_extractor.forward_actor(observations))
        found = distribution_family(distribution).parameters(distribution, th.zeros(512, 2))
        return tuple(part.detach().clone() for part in found)

    start = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(512)
    step = model.last_step
    assert step is not None
    assert step.accepted
    new = parameters()
    family = distribution_family(model.policy.action_dist)
    model.policy.load_state_dict(start)
    kl = family.kl_old_new(parameters(), new).mean().item()
    assert step.kl == pytest.approx(kl, rel=0.01)
    assert step.kl <= 1e-8
    assert kl <= 1.01e-8
