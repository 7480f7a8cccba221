"""The NumPy actor draws from the same distribution as the policy, and serves only policies for which it can."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.distributions.action_masks import MaskLayout
from sb3_trpo.distributions.masked import masked
from sb3_trpo.rollout.numpy_actor import NumpyActor, numpy_actor
from tests.helpers import plain, why_not_plain_actor
from tests.masked_envs import SPACES
from tests.toy_envs import ACTIONS, OBSERVATIONS, VECTOR, RandomEnv

ACTIVATIONS = [nn.Tanh, nn.ReLU, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.Mish, nn.Softsign, nn.Identity]
N_STEPS, N_ENVS = 40, 5


def make_policy(actions: str = "box", observations: str = "vector", **policy_kwargs: Any) -> ActorCriticPolicy:
    env = RandomEnv(OBSERVATIONS[observations], ACTIONS[actions])
    policy = TRPO("MlpPolicy", env, n_steps=64, batch_size=16, seed=0, policy_kwargs=policy_kwargs).policy
    with th.no_grad():
        for parameter in policy.parameters():  # far from the near-zero initialisation of the last layer
            parameter.add_(0.5 * th.randn_like(parameter))
    return policy


def roll(policy: ActorCriticPolicy) -> tuple[NumpyActor, np.ndarray, np.ndarray]:
    """Act on random observations; returns actor, observations and actions, one row per transition."""
    actor = NumpyActor(plain(policy), N_STEPS, N_ENVS)
    space = policy.observation_space
    obs = np.stack([[space.sample() for _ in range(N_ENVS)] for _ in range(N_STEPS)])
    actions = np.stack([actor.act(obs[step], step) for step in range(N_STEPS)])
    return actor, obs.reshape(-1, *obs.shape[2:]), actions.reshape(-1, *actions.shape[2:])


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", sorted(OBSERVATIONS.keys() - {"image", "dict"}))
def test_log_probs_are_the_policys(actions: str, observations: str) -> None:
    policy = make_policy(actions, observations)
    assert why_not_plain_actor(policy) is None
    actor, obs, taken = roll(policy)
    rows = th.as_tensor(taken).flatten(1) if taken.ndim > 1 else th.as_tensor(taken)  # as the buffer keeps them
    with th.no_grad():
        expected = policy.get_distribution(th.as_tensor(obs)).log_prob(rows)
        log_probs = actor.log_probs(rows)
    th.testing.assert_close(log_probs, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_log_probs_of_images_are_the_policys(share: bool) -> None:
    env = RandomEnv(OBSERVATIONS["image"], ACTIONS["discrete"])
    kwargs = {"share_features_extractor": share}
    model = TRPO("CnnPolicy", DummyVecEnv([lambda: env]), n_steps=64, batch_size=16, policy_kwargs=kwargs)
    model.policy.set_training_mode(False)  # as in a rollout
    assert why_not_plain_actor(model.policy) is None
    actor, obs, taken = roll(model.policy)
    with th.no_grad():
        expected = model.policy.get_distribution(th.as_tensor(obs)).log_prob(th.as_tensor(taken))
        log_probs = actor.log_probs(th.as_tensor(taken))
    th.testing.assert_close(log_probs, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_torchs(activation: type[nn.Module]) -> None:
    policy = make_policy(activation_fn=activation, net_arch=[8, 7])
    assert why_not_plain_actor(policy) is None
    actor, obs, taken = roll(policy)
    with th.no_grad():
        normal = policy.get_distribution(th.as_tensor(obs)).distribution
    noise = (th.as_tensor(taken) - normal.mean) / normal.stddev  # type: ignore[union-attr]
    np.testing.assert_allclose(noise.numpy(), actor._noise.reshape(-1, 2), atol=1e-4)


@pytest.mark.parametrize("actions", ACTIONS)
def test_actions_look_like_the_policys(actions: str) -> None:
    policy = make_policy(actions)
    obs = th.as_tensor(VECTOR.sample()[None])
    numpy_action = NumpyActor(plain(policy), 1, 1).act(obs.numpy(), 0)
    torch_action = policy(obs)[0].detach().numpy()
    assert (numpy_action.shape, numpy_action.dtype) == (torch_action.shape, torch_action.dtype)


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete", "multi_binary"])
def test_frequencies_are_the_probabilities(actions: str) -> None:
    policy = make_policy(actions)
    n = 20_000
    obs = np.repeat(VECTOR.sample()[None], n, axis=0)
    th.manual_seed(1)
    drawn = NumpyActor(plain(policy), 1, n).act(obs, 0).reshape(n, -1)
    with th.no_grad():
        distribution: Any = policy.get_distribution(th.as_tensor(obs[:1])).distribution
    for column in range(drawn.shape[1]):
        if actions == "multi_binary":
            probability = th.stack([1 - distribution.probs[0, column], distribution.probs[0, column]])
        else:
            probability = (distribution[column] if isinstance(distribution, list) else distribution).probs[0]
        frequency = np.bincount(drawn[:, column].astype(int), minlength=len(probability)) / n
        np.testing.assert_allclose(frequency, probability.numpy(), atol=4.0 * 0.5 / np.sqrt(n))


def test_beta_actions_follow_their_density() -> None:
    policy = TRPO("BetaMlpPolicy", RandomEnv(VECTOR), n_steps=64, batch_size=16, seed=0).policy
    with th.no_grad():
        policy.get_parameter("action_net.bias").copy_(th.tensor([0.5, -1.0, 2.0, -2.0]))
    n = 4_000
    obs = np.repeat(VECTOR.sample()[None], n, axis=0)
    th.manual_seed(1)
    actor = numpy_actor(plain(policy), 1, n)
    drawn = actor.act(obs, 0)
    assert (drawn.shape, drawn.dtype.name) == ((n, 2), "float32")
    with th.no_grad():
        distribution = policy.get_distribution(th.as_tensor(obs))
        th.testing.assert_close(actor.log_probs(th.as_tensor(drawn)), distribution.log_prob(th.as_tensor(drawn)))
        law: Any = distribution.distribution
    for column, sample in enumerate(0.5 * (drawn.T + 1.0)):
        a, b = law.concentration1[0, column].item(), law.concentration0[0, column].item()
        assert scipy.stats.kstest(sample, scipy.stats.beta(a, b).cdf).pvalue > 1e-3


def test_noise_follows_the_seed() -> None:
    policy = make_policy()
    drawn = []
    for _ in range(2):
        th.manual_seed(5)
        drawn.append(roll_fixed(policy))
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_a_dropped_actor_is_freed_at_once() -> None:
    actor = NumpyActor(plain(make_policy()), N_STEPS, N_ENVS)
    reference = weakref.ref(actor)
    gc.disable()
    try:
        del actor
        assert reference() is None
    finally:
        gc.enable()


def roll_fixed(policy: ActorCriticPolicy) -> np.ndarray:
    return NumpyActor(plain(policy), 1, N_ENVS).act(np.ones((N_ENVS, 3), dtype=np.float32), 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.add_(1.0),
        lambda p: p.data.add_(1.0),
        lambda p: setattr(p, "data", p.data + 1.0),
    ],
    ids=["in place", "in place behind autograd's back", "other storage"],
)
@pytest.mark.parametrize("parameter", ["action_net.bias", "log_std"])
def test_changed_weights_are_used_at_once(change: Callable[[th.Tensor], None], parameter: str) -> None:
    policy = make_policy()
    actor = NumpyActor(plain(policy), 2, N_ENVS)
    obs = np.ones((N_ENVS, 3), dtype=np.float32)
    first = actor.act(obs, 0)
    with th.no_grad():
        change(policy.get_parameter(parameter))
        normal: Any = policy.get_distribution(th.as_tensor(obs)).distribution
    second = actor.act(obs, 1)
    np.testing.assert_allclose((second - normal.mean.numpy()) / normal.stddev.numpy(), actor._noise[1], atol=1e-4)
    # the first step keeps the distribution that drew it
    log_probs = actor.log_probs(th.as_tensor(np.concatenate([first, second])))
    with th.no_grad():
        expected = normal.log_prob(th.as_tensor(second)).sum(dim=1)
    th.testing.assert_close(log_probs[N_ENVS:], expected, atol=1e-4, rtol=1e-5)
    assert not th.allclose(normal.log_prob(th.as_tensor(first)).sum(dim=1), log_probs[:N_ENVS])


def test_replaced_parameter_is_used_at_once() -> None:
    policy = make_policy()
    actor = NumpyActor(plain(policy), 2, N_ENVS)
    obs = np.ones((N_ENVS, 3), dtype=np.float32)
    policy.log_std = nn.Parameter(th.full((2,), -20.0))
    with th.no_grad():
        mean = policy.get_distribution(th.as_tensor(obs)).mode()
    np.testing.assert_allclose(actor.act(obs, 0), mean.numpy(), atol=1e-5)


class OwnPolicy(ActorCriticPolicy):
    pass


class OwnCNN(NatureCNN):
    pass


class OwnDistribution(DiagGaussianDistribution):
    pass


def with_hook(policy: ActorCriticPolicy) -> None:
    policy.mlp_extractor.register_forward_hook(lambda *_: None)


def with_parametrization(policy: ActorCriticPolicy) -> None:
    nn.utils.parametrizations.spectral_norm(policy.mlp_extractor.policy_net[0])


def with_patched_forward(policy: ActorCriticPolicy) -> None:
    policy.forward = policy.forward  # type: ignore[method-assign]


def with_own_distribution(policy: ActorCriticPolicy) -> None:
    policy.action_dist = OwnDistribution(2)


def with_layer_norm(policy: ActorCriticPolicy) -> None:
    policy.mlp_extractor.policy_net.append(nn.LayerNorm(64))


def activation_first(policy: ActorCriticPolicy) -> None:
    policy.mlp_extractor.policy_net = nn.Sequential(nn.Tanh(), nn.Linear(3, 64))


def linear_last(policy: ActorCriticPolicy) -> None:
    policy.mlp_extractor.policy_net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64))


def own_extractor_of_the_actor(policy: ActorCriticPolicy) -> None:
    policy.pi_features_extractor = NatureCNN(spaces.Box(0, 255, (1, 36, 36), dtype=np.uint8))


class Residual(nn.Sequential):
    """A Sequential that overrides ``forward``."""

    def forward(self, input: th.Tensor) -> th.Tensor:
        return input + th.zeros(1)


def residual_network(policy: ActorCriticPolicy) -> None:
    policy.mlp_extractor.policy_net = Residual(*policy.mlp_extractor.policy_net)


def clipped_gradient(policy: ActorCriticPolicy) -> None:
    policy.log_std.register_hook(lambda gradient: gradient.clamp(-1.0, 1.0))  # type: ignore[no-untyped-call]


def shared_std(policy: ActorCriticPolicy) -> None:
    policy.log_std = nn.Parameter(th.zeros(1))


def in_float64(policy: ActorCriticPolicy) -> None:
    policy.double()


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (with_hook, "hooks"),
        (with_parametrization, "ParametrizedLinear"),
        (with_patched_forward, "patched"),
        (with_own_distribution, "OwnDistribution"),
        (with_layer_norm, "LayerNorm"),
        (activation_first, "Tanh where a Linear is expected"),
        (linear_last, "Linear where a known activation is expected"),
        (own_extractor_of_the_actor, "NatureCNN"),
        (residual_network, "Residual"),
        (clipped_gradient, "hooks"),
        (shared_std, "log_std"),
        (in_float64, "float32"),
    ],
)
def test_altered_policy_acts_without_numpy(alter: Callable[[ActorCriticPolicy], None], reason: str) -> None:
    policy = make_policy()
    alter(policy)
    assert reason in (why_not_plain_actor(policy) or "")


def test_patched_class_acts_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    monkeypatch.setattr(ActorCriticPolicy, "forward", lambda *_: None)
    assert "patched" in (why_not_plain_actor(policy) or "")


@pytest.mark.parametrize(
    ("policy", "observations", "kwargs", "reason"),
    [
        (OwnPolicy, "vector", {}, "OwnPolicy"),
        ("CnnPolicy", "image", {"policy_kwargs": {"features_extractor_class": OwnCNN}}, "OwnCNN"),
        ("CnnPolicy", "image", {"policy_kwargs": {"net_arch": [4], "activation_fn": nn.GELU}}, "GELU"),
        ("MultiInputPolicy", "dict", {}, "MultiInput"),
        ("MlpPolicy", "image", {}, "images"),
        ("MlpPolicy", "vector", {"use_sde": True}, "StateDependentNoise"),
    ],
)
def test_other_policies_act_without_numpy(policy: Any, observations: str, kwargs: dict[str, Any], reason: str) -> None:
    model = TRPO(policy, RandomEnv(OBSERVATIONS[observations]), n_steps=8, batch_size=8, **kwargs)
    assert reason in (why_not_plain_actor(model.policy) or "")


@pytest.mark.parametrize("actions", SPACES)
def test_masked_draws_are_allowed_and_follow_the_masked_distribution(actions: str) -> None:
    policy, n = make_policy(actions), 20_000
    with th.no_grad():
        policy.action_net.weight.mul_(0.2)  # type: ignore[operator]
    layout = MaskLayout.of(policy.action_space)
    masks = np.zeros((n, layout.size), dtype=bool)
    masks[:, layout.starts] = True
    masks[:, -1] = True  # the last choice keeps two values, and the others one
    obs = np.full((n, 3), 0.3, dtype=np.float32)
    actor = NumpyActor(plain(policy), 1, n)
    drawn = actor.act(obs, 0, masks).reshape(n, -1)
    assert len(layout.forbidden(masks, drawn)) == 0
    with th.no_grad():
        distribution = masked(policy.action_dist, th.from_numpy(masks))
        outputs = policy.action_net(policy.mlp_extractor.forward_actor(th.from_numpy(obs)))
        distribution.proba_distribution(outputs)
        rows = th.from_numpy(drawn.astype(np.float32))
        rows = rows.flatten() if actions == "discrete" else rows
        log_probs = actor.log_probs(rows, th.from_numpy(masks))
        th.testing.assert_close(log_probs, distribution.log_prob(rows), atol=1e-5, rtol=1e-5)
    share = float((drawn[:, -1] > 0).mean())
    expected = float(log_probs[drawn[:, -1] > 0][0].exp())
    assert share == pytest.approx(expected, abs=0.015)
    assert 0.02 < expected < 0.98


def test_not_even_infinite_noise_lets_a_forbidden_action_win() -> None:
    policy = make_policy("discrete")
    actor = NumpyActor(plain(policy), 1, 2)
    actor._noise[:] = np.inf
    actor._noise[..., 1] = -1e30
    masks = np.array([[False, True, False]] * 2)
    assert actor.act(np.zeros((2, 3), dtype=np.float32), 0, masks).tolist() == [1, 1]
