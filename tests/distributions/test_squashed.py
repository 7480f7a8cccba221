"""The policy step of squashed gSDE uses the samples that were drawn, also where float32's tanh saturates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import StateDependentNoiseDistribution, TanhBijector
from torch.nn.functional import logsigmoid

from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.distributions.squashed import KeepingTanh, with_samples, without_samples
from tests.helpers import batch_of, collect
from tests.toy_envs import RandomEnv

SPACE = spaces.Box(-2.0, 3.0, (2,), dtype=np.float32)


class Bounded(RandomEnv):
    """Keeps the actions that it gets."""

    def __init__(self, shape: tuple[int, ...] = (2,)) -> None:
        super().__init__(action_space=spaces.Box(-2.0, 3.0, shape, dtype=np.float32))
        self.seen: list[np.ndarray] = []

    def step(self, action: Any) -> Any:
        self.seen.append(np.array(action))
        return super().step(action)


def make(log_std_init: float, env: RandomEnv | None = None, **kwargs: Any) -> TRPO:
    policy_kwargs = {"squash_output": True, "log_std_init": log_std_init}
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "seed": 0, "device": "cpu", **kwargs}
    return TRPO("MlpPolicy", env or Bounded(), use_sde=True, policy_kwargs=policy_kwargs, **settings)


@pytest.mark.parametrize("log_std_init", [-2.0, 0.0, 1.5, 3.0])
def test_gradient_is_that_of_the_samples_that_were_drawn(log_std_init: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = make(log_std_init), []
    plain_noise = StateDependentNoiseDistribution.get_noise

    def noise(self: StateDependentNoiseDistribution, latent: th.Tensor) -> th.Tensor:
        drawn.append((self.distribution.mean + plain_noise(self, latent)).clone())
        return plain_noise(self, latent)

    with monkeypatch.context() as patch:
        patch.setattr(StateDependentNoiseDistribution, "get_noise", noise)
        collect(model)
    batch, actor = batch_of(model), [p for name, p in model.policy.named_parameters() if "value" not in name]

    def gradient(log_prob: th.Tensor) -> th.Tensor:
        total = (log_prob * batch.advantages).mean()
        parts = th.autograd.grad(total, actor, allow_unused=True, materialize_grads=True)
        return th.cat([part.flatten() for part in parts])

    log_prob = model.interface.distribution(batch.states).log_prob(batch.actions)
    normal: Any = model.policy.get_distribution(batch.states.observations).distribution
    exact = normal.log_prob(th.cat(drawn)).sum(dim=1)
    ours, right = gradient(log_prob), gradient(exact)
    assert th.norm(ours - right) < 1e-3 * th.norm(right)
    th.testing.assert_close(batch.old_log_prob, log_prob, rtol=1e-4, atol=1e-4)  # the ratio starts at 1
    squash = 2.0 * (np.log(2.0) - th.cat(drawn) - th.nn.functional.softplus(-2.0 * th.cat(drawn))).sum(dim=1)
    th.testing.assert_close(log_prob, exact - squash, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_environment_gets_the_tanh_within_its_bounds(shape: tuple[int, ...]) -> None:
    env = Bounded(shape)
    model = collect(make(2.0, env))
    actions = model.rollout_buffer.actions
    assert (np.abs(actions) > 1.0).any()
    seen = np.stack(env.seen).reshape(64, -1)
    low, high = env.action_space.low.flatten(), env.action_space.high.flatten()  # type: ignore[attr-defined]
    assert ((seen >= low) & (seen <= high)).all()
    tanh = np.where(np.abs(actions) > 1.0, np.tanh(actions), actions).reshape(64, -1)
    np.testing.assert_allclose(seen, low + 0.5 * (tanh + 1.0) * (high - low), atol=1e-5)


@pytest.mark.parametrize("deterministic", [True, False])
def test_predictions_are_those_of_sb3(deterministic: bool) -> None:
    kwargs: dict[str, Any] = {"policy_kwargs": {"squash_output": True, "log_std_init": 2.0}, "use_sde": True, "seed": 0}
    ppo = PPO("MlpPolicy", Bounded(), device="cpu", n_steps=64, **kwargs)
    model = make(2.0)
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    model.policy.load_state_dict(ppo.policy.state_dict())
    results = []
    for one in (model, ppo):
        th.manual_seed(0)
        one.policy.reset_noise(50)
        results.append(one.predict(observations, deterministic=deterministic)[0])
        assert SPACE.contains(results[-1][0])
    np.testing.assert_array_equal(results[0], results[1])


def test_training_saving_and_vine_sampling(tmp_path: Path) -> None:
    model = make(2.0).learn(128)
    assert model.last_step is not None
    assert model.last_step.accepted
    model.save(tmp_path / "model")
    loaded = TRPO.load(tmp_path / "model", Bounded())
    assert type(vars(loaded.policy.action_dist)["bijector"]) is KeepingTanh
    loaded.learn(64)
    vine = VineTRPO(
        "MlpPolicy",
        "Pendulum-v1",
        use_sde=True,
        policy_kwargs={"squash_output": True, "log_std_init": 3.0},
        n_steps=64,
        batch_size=64,
        branch_length=2,
        seed=0,
    ).learn(64)
    assert (vine._branches.branch_actions.abs() > 1.0).any()
    assert vine._branches.old_log_prob.isfinite().all()


def test_inverse_of_plain_and_kept_actions() -> None:
    samples = th.tensor([[-50.0, -3.1, -2.9, 0.0, 0.5, 2.0, 4.0, 20.0]])
    bijector = KeepingTanh()
    actions = bijector.forward(samples)
    assert th.equal(actions, th.tanh(samples))
    th.testing.assert_close(bijector.inverse(bijector.keep(actions)), samples, rtol=1e-4, atol=0.0)
    assert th.equal(bijector.keep(actions), actions)  # they were drawn before the last call
    assert th.equal(bijector.inverse(actions), TanhBijector.inverse(actions))
    bijector.forward(samples)
    assert th.equal(bijector.keep(-actions), -actions)  # not those drawn
    exact = (logsigmoid(2.0 * samples.double()) + logsigmoid(-2.0 * samples.double()) + np.log(4.0)).float()
    th.testing.assert_close(bijector.log_prob_correction(samples), exact)


def test_other_distributions_keep_nothing() -> None:
    model = TRPO("MlpPolicy", Bounded(), n_steps=64, batch_size=64)
    actions = th.full((1, 2), 5.0)
    assert with_samples(model.policy.action_dist, actions) is actions
    np.testing.assert_array_equal(without_samples(np.array([0.3, -1.0, 1.0])), [0.3, -1.0, 1.0])
