"""Every argument that is set on a live model is used by the next ``learn`` or refused by name."""

import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.policies.aliases import CnnPolicy, MlpPolicy
from tests.helpers import OwnBuffer
from tests.toy_envs import RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "seed": 0, "gamma": 0.9}
USED: dict[str, Any] = {
    "normalize_observations": False,
    "learning_rate": 1e-2,
    "batch_size": 16,
    "cg_max_steps": 1,
    "cg_damping": 3.0,
    "line_search_shrinking_factor": 0.1,
    "line_search_max_iter": 1,
    "n_critic_updates": 3,
    "normalize_advantage": False,
    "target_kl": "lin_0.1",
    "sub_sampling_factor": 2,
    "fisher_sample_fraction": 0.3,
    "cg_tol": 0.5,
    "line_search_accept_ratio": 0.99,
    "ent_coef": 1.0,
    "max_grad_norm": 1e-3,
}
"""Arguments that change the weights."""
USED_BY_VINE: dict[str, Any] = {"n_branch_states": 12, "n_branch_actions": 3, "branch_length": 2, "n_branch_rollouts": 2}
REFUSED: dict[str, Any] = {
    "policy": "CnnPolicy",
    "policy_class": CnnPolicy,
    "n_steps": 32,
    "n_envs": 2,
    "gamma": 0.5,
    "gae_lambda": 0.5,
    "use_sde": True,
    "rollout_buffer_class": OwnBuffer,
    "rollout_buffer_kwargs": {"n": 1},
    "policy_kwargs": {"net_arch": [8]},
    "device": "meta",
    "clipped_gaussian": True,
}
TESTED_ALONE = {
    "env",
    "sde_sample_freq",
    "stats_window_size",
    "tensorboard_log",
    "verbose",
    "seed",
    "chunk_size",
    "normalize_returns",
    "scale_target_kl",
    "distributed",
    "freeze_normalization",
    "_init_setup_model",
    "unsupported",
}


def weights(model: TRPO) -> list[th.Tensor]:
    return list(model.policy.state_dict().values())


def same(a: TRPO, b: TRPO) -> bool:
    return all(map(th.equal, weights(a), weights(b)))


def trained_with(name: str, value: Any, later: bool, **kwargs: Any) -> TRPO:
    model = TRPO("MlpPolicy", RandomEnv(), **{**SETTINGS, **kwargs, **({} if later else {name: value})})
    setattr(model, name, value)
    return model.learn(128)


def test_no_argument_is_left_out() -> None:
    tested = {*USED, *REFUSED, *TESTED_ALONE} - {"policy_class", "n_envs"}
    assert tested == set(inspect.signature(TRPO).parameters)
    assert tested | set(USED_BY_VINE) == set(inspect.signature(VineTRPO).parameters)


@pytest.mark.parametrize("name", USED)
def test_a_change_has_the_effect_that_it_has_at_construction(name: str) -> None:
    later = trained_with(name, USED[name], later=True)
    assert same(later, trained_with(name, USED[name], later=False))
    if name not in ("cg_tol", "line_search_accept_ratio", "line_search_max_iter", "line_search_shrinking_factor"):
        assert not same(later, trained_with("verbose", 0, later=True))


@pytest.mark.parametrize("name", USED_BY_VINE)
def test_a_change_of_vine_sampling_has_the_effect_that_it_has_at_construction(name: str) -> None:
    def trained(**kwargs: Any) -> VineTRPO:
        return VineTRPO("MlpPolicy", "Pendulum-v1", n_steps=32, batch_size=32, seed=0, **{"branch_length": 1, **kwargs})

    later = trained()
    setattr(later, name, USED_BY_VINE[name])
    assert same(later.learn(32), trained(**{name: USED_BY_VINE[name]}).learn(32))
    assert not same(later, trained().learn(32))


@pytest.mark.parametrize("name", REFUSED)
def test_other_changes_are_refused_before_anything_is_collected(name: str) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    before = [value.clone() for value in weights(model)]
    policy = model.policy
    setattr(model, name, REFUSED[name])
    with pytest.raises(ValueError, match=rf"`{name}` (was set to|is) .*(make a new model|load it with)"):
        model.learn(64)
    assert model.num_timesteps in (0, 64)
    assert all(map(th.equal, policy.state_dict().values(), before))


@pytest.mark.parametrize("name", ["rollout_buffer_kwargs", "policy_kwargs"])
def test_a_dict_that_was_changed_in_place_is_noticed(name: str) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **SETTINGS)
    getattr(model, name)["new"] = 1
    with pytest.raises(ValueError, match=f"`{name}` was set to"):
        model.learn(64)


def test_a_value_that_means_the_same_is_no_change() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), device="cpu", policy_kwargs={"net_arch": [8]}, **SETTINGS)
    model.device, model.policy_kwargs = "cpu", {"net_arch": [8]}  # type: ignore[assignment]
    model.rollout_buffer_kwargs = None  # type: ignore[assignment]
    assert model.learn(64).num_timesteps == 64


def test_returns_can_be_normalised_from_the_next_update_on() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS, normalize_returns=False).learn(64)
    before = model.policy.get_parameter("value_net.weight").detach().clone()
    model.normalize_returns = True
    model.learn(64)
    assert model.return_moments.n_rollouts == 1
    assert before.any()  # the values that were learnt are kept
    th.testing.assert_close(model.policy.get_parameter("value_net.weight"), before, rtol=0.5, atol=0.2)


def test_the_advice_for_the_buffer_helps(tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), **SETTINGS).save(tmp_path / "model")
    assert (
        type(TRPO.load(tmp_path / "model", RandomEnv(), rollout_buffer_class=OwnBuffer).learn(64).rollout_buffer) is OwnBuffer
    )
    assert TRPO.load(tmp_path / "model", DummyVecEnv([RandomEnv, RandomEnv])).learn(128).n_envs == 2


def test_a_new_seed_is_that_of_a_new_run() -> None:
    # whether the first layers have weights of their own tells whether they are rescaled
    settings: dict[str, Any] = {**SETTINGS, "normalize_observations": False}
    model = TRPO("MlpPolicy", RandomEnv(), **{**settings, "seed": 7})
    again = TRPO("MlpPolicy", RandomEnv(), **settings)
    again.policy.load_state_dict(model.policy.state_dict())
    again.seed = 7
    model.set_random_seed(7)
    assert same(model.learn(128), again.learn(128))
    again.seed = None
    again.learn(64)


def test_a_new_environment_is_that_of_set_env() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    model.env = DummyVecEnv([lambda: RandomEnv(length=3)])
    model.learn(64, reset_num_timesteps=False)  # a new environment must be reset
    assert model.num_timesteps == 128
    model.env = RandomEnv(length=3)  # type: ignore[assignment]
    model.learn(64)
    model.env = gym.make("CartPole-v1")  # type: ignore[assignment]
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.learn(64)


def test_set_env_may_keep_the_running_episode() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    env, last = model.env, model._last_obs
    assert env is not None
    model.set_env(env, force_reset=False)
    model._setup_learn(64, None, reset_num_timesteps=False)
    assert model._last_obs is last


@pytest.mark.parametrize("reset", [True, False])
def test_a_new_window_is_that_of_the_next_averages(reset: bool) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64)
    assert model.stats_window_size == 100
    model.stats_window_size = 3
    model.learn(64, reset_num_timesteps=reset)
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) == model.ep_info_buffer.maxlen == 3
    model.stats_window_size = 0
    with pytest.raises(ValueError, match="`stats_window_size` must be an integer >= 1, not 0"):
        model.learn(64)


def test_a_new_frequency_of_the_noise_is_used() -> None:
    later = trained_with("sde_sample_freq", 2, later=True, use_sde=True)
    assert same(later, trained_with("sde_sample_freq", 2, later=False, use_sde=True))
    assert not same(later, trained_with("verbose", 0, later=True, use_sde=True))


def test_output_log_and_memory_can_be_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS)
    model.verbose, model.tensorboard_log, model.chunk_size = 1, str(tmp_path), 10
    model.learn(64)
    assert "Fast NumPy rollout enabled" in capsys.readouterr().out
    assert list(tmp_path.rglob("events*"))


class SetsRate(BaseCallback):
    def _on_step(self) -> bool:
        self.model.learning_rate = 0.25
        return True


def test_a_callback_may_set_the_learning_rate() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS).learn(64, callback=SetsRate())
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.25


def test_a_schedule_that_the_user_has_put_in_place_stays() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS)
    model.lr_schedule = FloatSchedule(ConstantSchedule(0.125))
    model.learn(64)
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.125


def test_another_policy_object_is_used() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SETTINGS)
    other = MlpPolicy(model.observation_space, model.action_space, model.lr_schedule)
    before = [value.clone() for value in other.state_dict().values()]
    model.policy = other
    model.learn(64)
    assert not all(map(th.equal, other.state_dict().values(), before))
    assert type(model.rollout_buffer) is RolloutBuffer
