"""The Gaussian of the clipped actions: its probabilities, and TRPO with it."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.distributions.clipped_gaussian import ClippedGaussianDistribution
from sb3_trpo.policies.interface import PolicyInterface
from tests.helpers import actor_of, batch_of, reached

LOW, HIGH = th.tensor([-0.4, -1.0], dtype=th.float64), th.tensor([0.4, 2.0], dtype=th.float64)


def distribution(requires_grad: bool = False) -> tuple[ClippedGaussianDistribution, th.Tensor, th.Tensor]:
    mean = th.tensor([[0.3, -0.9], [-1.0, 2.5]], dtype=th.float64, requires_grad=requires_grad)
    log_std = th.tensor([-0.5, 0.2], dtype=th.float64, requires_grad=requires_grad)
    clipped = ClippedGaussianDistribution(LOW, HIGH)
    clipped.proba_distribution(mean, log_std)
    return clipped, mean, log_std


def test_density_within_the_bounds_is_the_gaussians() -> None:
    clipped, mean, log_std = distribution()
    whole = DiagGaussianDistribution(2).proba_distribution(mean, log_std)
    actions = th.tensor([[0.1, -0.5], [-0.3, 1.9]], dtype=th.float64)
    th.testing.assert_close(clipped.log_prob(actions), whole.log_prob(actions))


def test_probabilities_add_up_to_one() -> None:
    low, high = th.tensor([-0.4], dtype=th.float64), th.tensor([0.4], dtype=th.float64)
    clipped = ClippedGaussianDistribution(low, high)
    n = 200_001
    inside = th.linspace(-0.4, 0.4, n, dtype=th.float64)[1:-1, None]
    clipped.proba_distribution(th.full_like(inside, 0.3), th.tensor([-0.5], dtype=th.float64))
    density = clipped.log_prob(inside).exp().sum() * 0.8 / (n - 1)
    ends = [clipped.log_prob(th.full_like(inside, x)).exp()[0] for x in (-5.0, 5.0)]
    assert (density + ends[0] + ends[1]).item() == pytest.approx(1.0, abs=1e-5)
    assert ends[0].item() == pytest.approx(0.5 * math.erfc(0.7 / math.exp(-0.5) / math.sqrt(2.0)), rel=1e-12)


def test_how_far_beyond_a_bound_makes_no_difference() -> None:
    clipped, mean, log_std = distribution(requires_grad=True)
    gradients = []
    for scale in (1.0, 100.0):
        actions = scale * th.tensor([[0.5, -1.2], [-0.5, 2.5]], dtype=th.float64)
        gradients.append(th.autograd.grad(clipped.log_prob(actions).sum(), [mean, log_std], retain_graph=True))
    th.testing.assert_close(*gradients, rtol=0.0, atol=0.0)


def test_estimate_of_the_gradient_has_the_same_mean_and_less_variance() -> None:
    # d/dμ E[f(clip(a))] from samples, f(a) = a, σ = 1, bounds ±1, μ = 1.5
    th.manual_seed(0)
    n = 200_000
    one = th.ones(1, dtype=th.float64)
    mean = th.full((n, 1), 1.5, dtype=th.float64, requires_grad=True)
    log_std = th.zeros(1, dtype=th.float64)
    parts = []
    for made in (ClippedGaussianDistribution(-one, one), DiagGaussianDistribution(1)):
        made.proba_distribution(mean, log_std)
        actions = mean.detach() + th.randn(n, 1, dtype=th.float64, generator=th.Generator().manual_seed(1))
        (score,) = th.autograd.grad(made.log_prob(actions).sum(), mean)
        parts.append((score * actions.clamp(-1.0, 1.0)).flatten())
    exact = 0.5 * (math.erf(-0.5 / math.sqrt(2.0)) - math.erf(-2.5 / math.sqrt(2.0)))  # P(-1 < a < 1)
    for estimate in parts:
        assert abs(estimate.mean().item() - exact) < 4.0 * estimate.std().item() / math.sqrt(n)
    assert parts[0].var() < 0.7 * parts[1].var()


def test_an_action_at_a_bound_is_the_bound() -> None:
    clipped, _, _ = distribution()
    for bound, sign in ((LOW, -1.0), (HIGH, 1.0)):
        at, beyond = bound.expand(2, 2), (bound + sign).expand(2, 2)
        th.testing.assert_close(clipped.log_prob(at), clipped.log_prob(beyond), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(("value", "error"), [(-3.0, 1e-3), (3.0, 1e-3), (-1e4, math.inf), (1e4, math.inf)])
def test_gradients_far_from_the_bounds_are_those_in_float64_or_finite(value: float, error: float) -> None:
    parts = []
    for dtype in (th.float32, th.float64):
        one = th.ones(1, dtype=dtype)
        mean = th.full((3, 1), value, dtype=dtype, requires_grad=True)
        log_std = th.full((1,), -2.0, dtype=dtype, requires_grad=True)
        made = ClippedGaussianDistribution(-one, one)
        made.proba_distribution(mean, log_std)
        log_prob = made.log_prob(th.tensor([[-2.0], [0.0], [2.0]], dtype=dtype))
        parts.append([part.double() for part in (log_prob, *th.autograd.grad(log_prob.sum(), [mean, log_std]))])
    assert all(th.isfinite(part).all() for part in parts[0])
    if error < math.inf:  # the action is at least 15 standard deviations away; farther ones are never drawn
        th.testing.assert_close(*parts, rtol=error, atol=1e-6)


class Narrow(gym.Env[np.ndarray, np.ndarray]):
    """Rewards large actions, most of which narrow bounds clip."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Box(np.array([-0.3, -0.1], np.float32), np.array([0.2, 0.1], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.t += 1
        reward = float(action[0] - action[1])
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32), reward, False, self.t == 10, {}


def make(clipped_gaussian: bool = True, **kwargs: Any) -> TRPO:
    kwargs = {"n_steps": 64, "batch_size": 32, "seed": 0, "device": "cpu", **kwargs}
    return TRPO("MlpPolicy", Narrow(), clipped_gaussian=clipped_gaussian, **kwargs)


def collect(model: TRPO) -> TRPO:
    """Collect one rollout."""
    _, callback = model._setup_learn(model.n_steps)
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def test_rollout_has_the_clipped_log_probabilities() -> None:
    model = collect(make(policy_kwargs={"log_std_init": 0.0}))
    batch = batch_of(model)
    assert (np.abs(batch.actions.numpy()) > 0.3).mean() > 0.5  # most are beyond a bound, and the buffer keeps them as drawn
    with th.no_grad():
        assert isinstance(batch.states.observations, th.Tensor)
        expected = model.policy.evaluate_actions(batch.states.observations, batch.actions)[1]
    th.testing.assert_close(batch.old_log_prob, expected, atol=1e-5, rtol=1e-5)


def test_the_policy_acts_as_without_clipping() -> None:
    clipped, whole = collect(make()), collect(make(clipped_gaussian=False))
    np.testing.assert_array_equal(clipped.rollout_buffer.actions, whole.rollout_buffer.actions)
    assert not np.allclose(clipped.rollout_buffer.log_probs, whole.rollout_buffer.log_probs)


def test_both_networks_agree() -> None:
    model = make(policy_kwargs={"net_arch": [16, 8]}).learn(128)
    batch = batch_of(model)
    parameters = reached(model.policy, batch)
    plain, graph = actor_of(model.policy), AutogradActor(PolicyInterface(model.policy))
    assert isinstance(plain, HandActor)
    gradients = [network.gradient(lambda chunk, d: d.log_prob(chunk.actions), batch, parameters) for network in (plain, graph)]
    th.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    vector = th.randn(sum(parameter.numel() for parameter in parameters))
    products = [network.linearise(batch, parameters).product(vector) for network in (plain, graph)]
    th.testing.assert_close(*products, atol=1e-3, rtol=1e-3)


def test_it_learns_and_keeps_the_bound() -> None:
    model = make(target_kl=0.02)
    first = last = 0.0
    for update in range(20):
        model.learn(64, reset_num_timesteps=False)
        assert model.last_step is not None
        assert model.last_step.kl <= 0.02
        last = float(model.rollout_buffer.rewards.mean())
        first = first if update else last
    assert last > first + 0.05  # at most 0.3


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model = make().learn(64)
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", env=Narrow())
    assert loaded.clipped_gaussian
    assert type(loaded.policy.action_dist) is ClippedGaussianDistribution
    loaded.learn(64)


def test_vine_takes_it() -> None:
    kwargs: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_branch_states": 16, "branch_length": 4, "seed": 0}
    model = VineTRPO("MlpPolicy", "Pendulum-v1", clipped_gaussian=True, **kwargs).learn(64)
    assert model.last_step is not None
    assert 0.0 < model.last_step.kl <= 0.03


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (spaces.Discrete(3), {}, r"a Box in `action_space` without `use_sde`; .* CategoricalDistribution for Discrete"),
        (None, {"use_sde": True}, r"without `use_sde`; the policy has a StateDependentNoiseDistribution for Box"),
    ],
)
def test_other_distributions_are_refused(space: Any, kwargs: dict[str, Any], message: str) -> None:
    env = Narrow()
    env.action_space = space or env.action_space
    with pytest.raises(ValueError, match=message):
        TRPO("MlpPolicy", env, device="cpu", clipped_gaussian=True, **kwargs)


def test_only_a_boolean_is_accepted() -> None:
    with pytest.raises(ValueError, match="`clipped_gaussian` must be True or False, not 'yes'"):
        TRPO("MlpPolicy", Narrow(), device="cpu", clipped_gaussian="yes")  # type: ignore[arg-type]


class OwnHead(ActorCriticPolicy):
    """Makes its distribution from other means."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return super()._get_action_dist_from_latent(2.0 * latent_pi)


def test_a_policy_that_makes_its_own_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="needs SB3's `_get_action_dist_from_latent`, which OwnHead overrides"):
        TRPO(OwnHead, Narrow(), device="cpu", clipped_gaussian=True)


@pytest.mark.parametrize("before", [True, False])
def test_changing_it_later_is_an_error(before: bool) -> None:
    model = make(clipped_gaussian=before)
    model.clipped_gaussian = not before
    with pytest.raises(ValueError, match=f"`clipped_gaussian` was set to {not before} after the policy was made; save"):
        model.learn(64)


@pytest.mark.parametrize("bound", [np.finfo(np.float32).max, 1e12])
def test_bounds_that_no_action_reaches_change_nothing(bound: float) -> None:
    env = Narrow()
    env.action_space = spaces.Box(-np.float32(bound), np.float32(bound), (2,), np.float32)
    kwargs: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "seed": 0, "device": "cpu"}
    steps: list[list[float]] = []
    for clipped in (True, False):
        model = TRPO("MlpPolicy", env, clipped_gaussian=clipped, **kwargs).learn(64)
        assert model.last_step is not None
        assert model.last_step.accepted
        steps.append([model.last_step.kl, model.last_step.surrogate])
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-3)


def test_bounds_follow_the_mean_to_its_device() -> None:
    # the copy that acts on the CPU shares the distribution of a policy on a GPU
    low, high = LOW.to("meta"), HIGH.to("meta")
    made = ClippedGaussianDistribution(low, high)
    asked = []
    made.low.to = lambda device: asked.append(device) or LOW  # type: ignore[assignment,method-assign,func-returns-value]
    made.high.to = lambda device: asked.append(device) or HIGH  # type: ignore[assignment,method-assign,func-returns-value]
    made.proba_distribution(th.zeros(2, 2, dtype=th.float64), th.zeros(2, dtype=th.float64))
    assert th.isfinite(made.log_prob(th.zeros(2, 2, dtype=th.float64))).all()
    assert asked == [th.device("cpu")] * 2
