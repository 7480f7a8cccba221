"""The Beta distribution of actions: density, entropy, mode and samples."""

import math

import pytest
import torch as th

from sb3_trpo.distributions.beta import BetaDistribution

ONE = math.log(math.e - 1.0)
"""The number whose softplus is 1."""


def beta(u: float, v: float, copies: int = 1) -> BetaDistribution:
    return BetaDistribution(1).proba_distribution(th.tensor([[u, v]], dtype=th.float64).expand(copies, 2))


def test_density_of_a_known_distribution() -> None:
    # Beta(2, 2) has the density 6 x (1 - x) over [0, 1], 1.5 in the middle; over [-1, 1] it is half of that
    known = beta(ONE, ONE)
    assert known.log_prob(th.zeros(1, 1, dtype=th.float64)).item() == pytest.approx(math.log(0.75), rel=1e-12)
    assert known.entropy().item() == pytest.approx(5.0 / 3.0 - math.log(6.0) + math.log(2.0), rel=1e-12)


def test_density_adds_up_to_one() -> None:
    n = 100_001
    actions = th.linspace(-1.0, 1.0, n, dtype=th.float64)[:, None]
    density = beta(-0.5, 1.5, copies=n).log_prob(actions).exp()
    assert (2.0 / (n - 1) * density.sum()).item() == pytest.approx(1.0, abs=1e-4)


def test_density_at_a_bound_is_finite() -> None:
    bounds = th.tensor([[-1.0], [1.0]], dtype=th.float64)
    assert th.isfinite(beta(3.0, 3.0, copies=2).log_prob(bounds)).all()


@pytest.mark.parametrize(("u", "v"), [(0.0, 0.0), (2.0, -3.0), (-30.0, 10.0)])
def test_mode_has_the_largest_density(u: float, v: float) -> None:
    mode = beta(u, v).mode()
    others = th.linspace(-1.0, 1.0, 1_001, dtype=th.float64)[:, None]
    largest = beta(u, v).log_prob(mode).item()
    assert largest >= beta(u, v, copies=1_001).log_prob(others).max().item() - 1e-9


def test_samples_have_the_mean_and_stay_within_the_bounds() -> None:
    th.manual_seed(0)
    drawn = beta(1.0, 0.0, copies=20_000)
    actions = drawn.sample()
    assert actions.abs().max().item() <= 1.0
    law = drawn.distribution
    assert actions.mean().item() == pytest.approx(2.0 * law.mean[0].item() - 1.0, abs=4.0 * 2.0 * law.stddev[0].item() / 141.0)


def test_from_parameters() -> None:
    outputs = th.tensor([[0.3, -0.2, 1.0, 0.5]])
    made = BetaDistribution(2)
    assert th.equal(made.actions_from_params(outputs, deterministic=True), made.mode())
    actions, log_probs = made.log_prob_from_params(outputs)
    assert actions.shape == (1, 2)
    th.testing.assert_close(log_probs, made.log_prob(actions))
