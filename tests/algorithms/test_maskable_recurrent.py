"""Memory and masks together: each as it is alone, and a task that needs both."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trpo import TRPO, MaskableRecurrentTRPO, MaskableTRPO, RecurrentTRPO, evaluate_policy
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.choose import actor_network, plain_policy
from tests.helpers import batch_of
from tests.masked_envs import SPACES, MaskedEnv
from tests.toy_envs import ACTIONS

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "seed": 0, "device": "cpu", "n_critic_updates": 2}
SMALL["policy_kwargs"] = {"lstm_hidden_size": 8}


def same_weights(first: TRPO, second: TRPO) -> bool:
    return all(map(th.equal, first.policy.state_dict().values(), second.policy.state_dict().values()))


def test_masks_that_allow_everything_change_no_bit() -> None:
    env = DummyVecEnv([partial(MaskedEnv, share=1.0)] * 2)
    model = MaskableRecurrentTRPO("MlpLstmPolicy", env, **SMALL).learn(192)
    assert model.trained_with_masks
    assert model.last_step is not None
    assert model.last_step.accepted
    assert same_weights(
        model, RecurrentTRPO("MlpLstmPolicy", DummyVecEnv([partial(MaskedEnv, share=1.0)] * 2), **SMALL).learn(192)
    )


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("actions", SPACES)
@pytest.mark.parametrize("where", ["env_method", "info", "observation"])
def test_forbidden_actions_are_never_taken(where: str, actions: str, rnn_type: str) -> None:
    env = DummyVecEnv([partial(MaskedEnv, ACTIONS[actions], where, truncate=True)] * 2)  # which refuses them
    policy = "MultiInputLstmPolicy" if where == "observation" else "MlpLstmPolicy"
    settings = {**SMALL, "policy_kwargs": {**SMALL["policy_kwargs"], "rnn_type": rnn_type}}
    model = MaskableRecurrentTRPO(policy, env, **settings).learn(128)
    assert model.last_step is not None
    assert 0.0 < model.last_step.kl <= 0.03
    _, callback = model._setup_learn(64, None, reset_num_timesteps=False)
    model.collect_rollouts(env, callback, model.rollout_buffer, 32)
    batch = model.interface.arrange(batch_of(model), 2)
    assert batch.states.action_masks is not None
    assert 0 < (~batch.states.action_masks).sum() < batch.states.action_masks.numel()
    for actor in (actor_network(model.interface, plain_policy(model.interface)), AutogradActor(model.interface)):
        log_prob = actor.distribution(batch.states).log_prob(batch.actions)  # the update sees the policy that acted
        th.testing.assert_close(log_prob, batch.old_log_prob, rtol=1e-4, atol=1e-5)


class Corridor(gym.Env[Any, Any]):
    """Shows where to turn, lets the agent walk on only, then asks for the turn: 1 for the right one, otherwise 0."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)  # left, right, on
    length = 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.turn, self.position = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.turn - 1.0], dtype=np.float32), {}

    def action_masks(self) -> np.ndarray:
        at_end = self.position == self.length
        return np.array([at_end, at_end, not at_end])

    def step(self, action: Any) -> Any:
        assert self.action_masks()[action]
        done = self.position == self.length
        self.position += 1
        return np.zeros(1, dtype=np.float32), float(done and action == self.turn), done, False, {}


class ForgetfulCorridor(Corridor):
    """Refuses whatever is done first."""

    def action_masks(self) -> np.ndarray:
        return np.array([False, False, False])


def corridor_return(model: Any) -> float:
    env, returns = Corridor(), []
    for seed in range(40):
        obs, _ = env.reset(seed=seed)
        state, start, done = None, True, False
        while not done:
            masks = env.action_masks()
            action, state = model.predict(obs, state, np.array([start]), deterministic=True, action_masks=masks)
            obs, reward, done, *_ = env.step(int(action))
            start = False
        returns.append(reward)
    return float(np.mean(returns))


def test_it_remembers_where_to_turn_and_without_memory_it_does_not() -> None:
    settings: dict[str, Any] = {"n_steps": 64, "seed": 1, "device": "cpu", "gamma": 0.9, "target_kl": 0.1}
    env = DummyVecEnv([Corridor] * 4)
    model = MaskableRecurrentTRPO("MlpLstmPolicy", env, policy_kwargs={"lstm_hidden_size": 8}, **settings).learn(8_000)
    assert corridor_return(model) == 1.0
    assert evaluate_policy(model, Monitor(Corridor()), 20) == (1.0, 0.0)
    assert evaluate_policy(model, DummyVecEnv([lambda: Monitor(Corridor())] * 3), 21) == (1.0, 0.0)
    with pytest.warns(UserWarning, match="without `action_masks`"), pytest.raises(AssertionError):
        evaluate_policy(model, Monitor(ForgetfulCorridor()), 20, use_masking=False)
    memoryless = MaskableTRPO("MlpPolicy", DummyVecEnv([Corridor] * 4), **settings).learn(2_000)
    assert corridor_return(memoryless) < 0.8


def test_predict_misses_state_and_masks() -> None:
    model = MaskableRecurrentTRPO("MlpLstmPolicy", MaskedEnv(), **SMALL).learn(32)
    observation, masks = np.zeros(3, dtype=np.float32), np.array([False, True, False, True])[: model.action_space.n]  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="without `action_masks`"):
        model.predict(observation)

    def forget() -> None:
        for _ in range(200):
            model.predict(observation, action_masks=masks)

    with pytest.warns(UserWarning, match="in a row without `state`"):
        forget()


def test_saved_and_taken_over(tmp_path: Path) -> None:
    model = MaskableRecurrentTRPO("MlpLstmPolicy", MaskedEnv(), **SMALL, bptt_length=4, mask_source="env_method").learn(32)
    model.save(tmp_path / "model")
    loaded = MaskableRecurrentTRPO.load(tmp_path / "model", MaskedEnv())
    assert (loaded.bptt_length, loaded.mask_source) == (4, "env_method")
    assert same_weights(model, loaded)
    loaded.learn(32)
    ppo = RecurrentPPO("MlpLstmPolicy", MaskedEnv(), n_steps=32, policy_kwargs={"lstm_hidden_size": 8})
    taken = MaskableRecurrentTRPO.from_ppo(ppo, batch_size=32)
    assert all(map(th.equal, taken.policy.state_dict().values(), ppo.policy.state_dict().values()))


def test_box_actions_and_policies_without_memory_are_refused() -> None:
    with pytest.raises(AssertionError, match="The algorithm only supports"):
        MaskableRecurrentTRPO("MlpLstmPolicy", "Pendulum-v1")
    with pytest.raises(ValueError, match="`policy` must be a class or one of 'MlpLstmPolicy'"):
        MaskableRecurrentTRPO("MlpPolicy", MaskedEnv())
