"""A rollout fills the buffer, informs callbacks and refuses bad numbers, with and without deferral."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize

from sb3_trpo import TRPO
from tests.helpers import collect, why_not_fast
from tests.toy_envs import ACTIONS, OBSERVATIONS, FaultyEnv, RandomEnv

LOCALS = ["new_obs", "rewards", "dones", "infos", "actions", "clipped_actions", "values", "log_probs", "n_steps"]
LOCALS += ["rollout_buffer", "obs_tensor"]


class OwnBuffer(RolloutBuffer):
    """Counts the calls of ``add``."""

    added = 0

    def add(self, *args: Any) -> None:
        self.added += 1
        super().add(*args)


class Recorder(BaseCallback):
    """Keeps a copy of the locals of every step, and of the buffer at the end of the rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.end: dict[str, Any] = {}

    def _on_step(self) -> bool:
        self.steps.append({name: self.locals[name] for name in LOCALS})
        return True

    def _on_rollout_end(self) -> None:
        self.end = {name: self.locals[name] for name in LOCALS}
        buffer = self.locals["rollout_buffer"]
        self.end["arrays"] = {
            name: np.array(getattr(buffer, name))
            for name in ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns")
        }


def make_model(deferred: bool, actions: str = "box", n_envs: int = 2, truncate: bool = True, **kwargs: Any) -> TRPO:
    def make() -> RandomEnv:
        return RandomEnv(action_space=ACTIONS[actions], length=5, truncate=truncate)

    kwargs = {"n_steps": 16, "batch_size": 8, "seed": 3, "gamma": 0.9, "gae_lambda": 0.8, **kwargs}
    if not deferred:
        kwargs["rollout_buffer_class"] = OwnBuffer
    model = TRPO("MlpPolicy", DummyVecEnv([make] * n_envs), **kwargs)
    assert (why_not_fast(model) is None) is deferred
    return model


def one_rollout(model: TRPO) -> Recorder:
    """Collect one rollout without updating, so that the weights are those that acted."""
    recorder = Recorder()
    collect(model, recorder)
    return recorder


@pytest.mark.parametrize("deferred", [True, False])
@pytest.mark.parametrize("actions", ACTIONS)
def test_values_and_log_probs_are_the_policys(deferred: bool, actions: str) -> None:
    model = make_model(deferred, actions)
    arrays = one_rollout(model).end["arrays"]
    obs = th.as_tensor(arrays["observations"].reshape(-1, 3))
    taken = th.as_tensor(arrays["actions"].reshape(len(obs), -1)).float()
    with th.no_grad():
        values, log_probs, _ = model.policy.evaluate_actions(obs, taken.flatten() if actions == "discrete" else taken)
    np.testing.assert_allclose(arrays["values"].reshape(-1, 1), values.numpy(), atol=1e-5)
    np.testing.assert_allclose(arrays["log_probs"].flatten(), log_probs.numpy(), atol=1e-4)


@pytest.mark.parametrize("deferred", [True, False])
@pytest.mark.parametrize("truncate", [True, False])
def test_timeouts_are_bootstrapped_and_terminations_are_not(deferred: bool, truncate: bool) -> None:
    model = make_model(deferred, truncate=truncate)
    recorder = one_rollout(model)
    expected = np.zeros((16, 2))
    ends = 0
    for step, seen in enumerate(recorder.steps):
        for env, info in enumerate(seen["infos"]):
            expected[step, env] = np.mean(seen["clipped_actions"][env]) + 0.1 * (step % 5 + 1)
            if seen["dones"][env]:
                ends += 1
                with th.no_grad():
                    value = model.policy.predict_values(th.as_tensor(info["terminal_observation"][None]))
                expected[step, env] += 0.9 * value.item() if truncate else 0.0
    assert ends == 6
    np.testing.assert_allclose(recorder.end["arrays"]["rewards"], expected, atol=1e-5)


@pytest.mark.parametrize("deferred", [True, False])
def test_advantages_are_gae_by_hand(deferred: bool) -> None:
    recorder = one_rollout(make_model(deferred))
    arrays = recorder.end["arrays"]
    last_values = recorder.end["values"].flatten().numpy()
    advantage = np.zeros(2)
    for step in reversed(range(16)):
        alive = 1.0 - recorder.steps[step]["dones"]
        next_values = last_values if step == 15 else arrays["values"][step + 1]
        delta = arrays["rewards"][step] + 0.9 * next_values * alive - arrays["values"][step]
        advantage = delta + 0.9 * 0.8 * alive * advantage
        np.testing.assert_allclose(arrays["advantages"][step], advantage, atol=1e-5)
    np.testing.assert_allclose(arrays["returns"], arrays["advantages"] + arrays["values"], atol=1e-6)


@pytest.mark.parametrize("deferred", [True, False])
@pytest.mark.parametrize("actions", ACTIONS)
def test_callbacks_see_sb3s_locals(deferred: bool, actions: str) -> None:
    model = make_model(deferred, actions)
    recorder = one_rollout(model)
    assert [seen["n_steps"] for seen in recorder.steps] == list(range(16))
    for step, seen in enumerate(recorder.steps):
        assert seen["rollout_buffer"] is model.rollout_buffer
        assert seen["values"].shape == (2, 1)
        assert seen["log_probs"].shape == (2,)
        assert bool(th.isnan(seen["values"]).all()) is deferred
        assert bool(th.isnan(seen["log_probs"]).all()) is deferred
        assert seen["rewards"].shape == seen["dones"].shape == (2,)
        assert seen["actions"].shape == (2, *ACTIONS[actions].shape)  # type: ignore[misc]
        np.testing.assert_array_equal(seen["obs_tensor"].numpy(), recorder.end["arrays"]["observations"][step])
        rows = recorder.end["arrays"]["actions"][step]
        np.testing.assert_array_equal(rows, seen["actions"].reshape(2, -1))
        if step < 15:
            np.testing.assert_array_equal(recorder.end["arrays"]["observations"][step + 1], seen["new_obs"])
    with th.no_grad():
        last = model.policy.predict_values(th.as_tensor(recorder.end["new_obs"]))
    th.testing.assert_close(recorder.end["values"], last)
    np.testing.assert_allclose(recorder.end["log_probs"].numpy(), recorder.end["arrays"]["log_probs"][-1])
    assert recorder.end["n_steps"] == 16


def test_custom_buffer_receives_every_step() -> None:
    model = make_model(deferred=False)
    one_rollout(model)
    assert isinstance(model.rollout_buffer, OwnBuffer)
    assert model.rollout_buffer.added == 16


def test_actions_are_clipped_for_the_environment_only() -> None:
    model = make_model(deferred=True, policy_kwargs={"log_std_init": 2.0})
    recorder = one_rollout(model)
    assert max(np.abs(seen["clipped_actions"]).max() for seen in recorder.steps) == 1.0
    assert np.abs(recorder.end["arrays"]["actions"]).max() > 1.0


class Stop(BaseCallback):
    """Stops the training at its third step."""

    def _on_step(self) -> bool:
        return self.n_calls < 3


@pytest.mark.parametrize("deferred", [True, False])
def test_stopped_training_continues_where_it_stopped(deferred: bool) -> None:
    model = make_model(deferred)
    model.learn(64, callback=Stop())
    assert model.num_timesteps == 6
    assert model.env is not None
    np.testing.assert_array_equal(model._last_obs, model.env.buf_obs[None])  # type: ignore[attr-defined]
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 6 + 64


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"reward": float("nan")}, "reward of environment 0 at step 5"),
    ({"reward": float("inf")}, "reward of environment 0 at step 5"),
    ({"observation": float("nan")}, "observation of environment 0 at step 6"),
    ({"observation": float("-inf")}, "observation of environment 0 at step 6"),
]


def weights(model: TRPO) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def check_usable(model: TRPO, before: th.Tensor, path: Path) -> None:
    """The weights are untouched, and the model can be saved, loaded and trained on."""
    assert th.equal(weights(model), before)
    model.save(path / "model")
    assert th.equal(weights(TRPO.load(path / "model")), before)
    model.learn(16, reset_num_timesteps=False)
    assert not th.equal(weights(model), before)
    assert th.isfinite(weights(model)).all()


@pytest.mark.parametrize("sde", [False, True], ids=["deferred", "immediate"])
@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_non_finite_numbers_are_refused_by_name(sde: bool, fault: dict[str, Any], message: str, tmp_path: Path) -> None:
    env = FaultyEnv(at=5, **fault)
    model = TRPO("MlpPolicy", env, n_steps=16, batch_size=8, use_sde=sde)
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        model.learn(64)
    assert np.isfinite(env.actions).all()
    check_usable(model, before, tmp_path)


def test_a_refused_reward_does_not_enter_the_statistics() -> None:
    model = TRPO("MlpPolicy", FaultyEnv(at=7, reward=float("nan")), n_steps=16, batch_size=8)  # the end of an episode
    with pytest.raises(ValueError, match="reward of environment 0 at step 7"):
        model.learn(64)
    model.learn(64, reset_num_timesteps=False)
    assert model.ep_info_buffer
    assert all(np.isfinite(info["r"]) for info in model.ep_info_buffer)


@pytest.mark.parametrize("sde", [False, True], ids=["deferred", "immediate"])
def test_non_finite_action_never_reaches_the_environment(sde: bool) -> None:
    env = FaultyEnv(at=1000)
    model = TRPO("MlpPolicy", env, n_steps=16, batch_size=8, use_sde=sde)

    class Spoil(BaseCallback):
        def _on_step(self) -> bool:
            with th.no_grad():
                model.policy.action_net.bias.fill_(th.nan)  # type: ignore[operator]
            return True

    with pytest.raises(ValueError, match="action distribution of environment 0 at step 1"):
        model.learn(64, callback=Spoil())
    assert len(env.actions) == 1


def test_non_finite_logits_are_refused_before_the_update() -> None:
    model = TRPO("MlpPolicy", RandomEnv(action_space=ACTIONS["discrete"]), n_steps=16, batch_size=8)
    with th.no_grad():
        model.policy.action_net.bias.fill_(th.nan)  # type: ignore[operator]
    before = weights(model)
    with pytest.raises(ValueError, match=r"action distribution of environment 0 at step 0 of the rollout is not finite"):
        model.learn(64)
    assert th.equal(weights(model).nan_to_num(7.0), before.nan_to_num(7.0))


class EndsWithNan(RandomEnv):
    """Its terminal observations are NaN; its first ones are not."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        return (np.full_like(obs, np.nan) if truncated else obs), reward, terminated, truncated, info


@pytest.mark.parametrize("sde", [False, True], ids=["deferred", "immediate"])
def test_non_finite_terminal_observation_is_refused_by_name(sde: bool) -> None:
    env = DummyVecEnv([RandomEnv, lambda: EndsWithNan(length=4, truncate=True)])
    with pytest.raises(ValueError, match="terminal observation of environment 1 at step 3"):
        TRPO("MlpPolicy", env, n_steps=16, batch_size=8, use_sde=sde).learn(64)


class OneTerminalObs(VecEnvWrapper):
    """Writes every terminal observation into one array."""

    def reset(self) -> Any:
        self.terminal = np.zeros(3, dtype=np.float32)
        return self.venv.reset()

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        for i in np.flatnonzero(dones):
            self.terminal[:] = infos[i]["terminal_observation"]
            infos[i]["terminal_observation"] = self.terminal
        return obs, rewards, dones, infos


def test_terminal_observations_may_share_an_array() -> None:
    def rewards(wrap: Callable[[Any], Any]) -> np.ndarray:
        env = wrap(DummyVecEnv([lambda: RandomEnv(deepcopy(OBSERVATIONS["vector"]), length=5, truncate=True)]))
        model = TRPO("MlpPolicy", env, n_steps=16, batch_size=8, seed=4)
        return np.asarray(one_rollout(model).end["arrays"]["rewards"])

    np.testing.assert_array_equal(rewards(lambda env: env), rewards(OneTerminalObs))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("fault", [{"reward": float("inf")}, {"observation": float("nan")}])
def test_error_says_that_vec_normalize_cannot_be_repaired(fault: dict[str, Any]) -> None:
    env = VecNormalize(DummyVecEnv([lambda: FaultyEnv(at=5, **fault)]))
    model = TRPO("MlpPolicy", env, n_steps=16, batch_size=8)
    before = weights(model)
    with pytest.raises(ValueError, match=r"not finite.*VecNormalize, which cannot be repaired"):
        model.learn(64)
    assert th.equal(weights(model), before)


def test_healthy_vec_normalize_is_not_blamed() -> None:
    env = VecNormalize(DummyVecEnv([lambda: FaultyEnv(at=5, reward=float("nan"))]), training=False)
    with pytest.raises(ValueError, match="reward of environment 0 at step 5") as error:
        TRPO("MlpPolicy", env, n_steps=16, batch_size=8).learn(64)
    assert "cannot be repaired" not in str(error.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_model_is_usable_after_an_interruption(error: type[BaseException], tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", FaultyEnv(at=5, error=error), n_steps=16, batch_size=8)
    before = weights(model)
    with pytest.raises(error):
        model.learn(64)
    check_usable(model, before, tmp_path)


def test_huge_rewards_are_refused_before_any_weight_moves(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", FaultyEnv(at=5, reward=1e30), n_steps=16, batch_size=8)
    before = weights(model)
    with pytest.raises(ValueError, match=r"returns of the rollout reach 1e\+30.*Scale the rewards"):
        model.learn(64)
    check_usable(model, before, tmp_path)


@pytest.mark.parametrize("sde", [False, True])
@pytest.mark.parametrize("n_steps", [8, 32])
def test_n_steps_must_be_the_buffers(sde: bool, n_steps: int, tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8, use_sde=sde)
    model.n_steps = n_steps
    with pytest.raises(ValueError, match=f"`n_steps` is {n_steps}, but the rollout buffer was made for 16; .*load it with"):
        model.learn(n_steps)
    model.save(tmp_path / "model")
    TRPO.load(tmp_path / "model", RandomEnv(), n_steps=n_steps).learn(n_steps)  # what the message says


@pytest.mark.parametrize("name", ["gamma", "gae_lambda"])
def test_discount_must_be_the_buffers(name: str, tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8)
    setattr(model, name, 0.5)
    with pytest.raises(
        ValueError, match=f"`{name}` is 0.5, but the rollout buffer was made for 0.9.*load it with `{name}=0.5`"
    ):
        model.learn(16)
    model.save(tmp_path / "model")
    changed: dict[str, Any] = {name: 0.5}
    TRPO.load(tmp_path / "model", RandomEnv(), **changed).learn(16)  # what the message says


class WithAGammaOfItsOwn(RolloutBuffer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "gamma": 0.5})


def test_a_custom_buffer_may_have_another_discount() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8, rollout_buffer_class=WithAGammaOfItsOwn)
    model.learn(16)
    assert model.rollout_buffer.gamma == 0.5


class Faint(gym.ObservationWrapper[Any, Any, Any]):
    """Observations so small that their products with weights underflow float32."""

    def observation(self, observation: Any) -> Any:
        return np.full_like(observation, 1e-38)


def test_numpy_may_be_told_to_raise() -> None:
    model = TRPO("MlpPolicy", Faint(RandomEnv()), n_steps=16, batch_size=8)
    with np.errstate(all="raise"):
        model.learn(16)
    assert model._n_updates == 1


@pytest.mark.parametrize("actions", ["box", "discrete", "multi_binary"])
def test_torch_may_have_another_default_dtype_later(actions: str) -> None:
    model = make_model(True, actions)
    th.set_default_dtype(th.float64)
    try:
        model.learn(32)
    finally:
        th.set_default_dtype(th.float32)
    assert model.policy.value_net.weight.dtype == th.float32
    assert model._n_updates == 1


def test_a_rollout_without_a_first_observation_is_refused() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8)
    assert model.env is not None
    with pytest.raises(RuntimeError, match="call `learn`"):
        model.collect_rollouts(model.env, Recorder(), model.rollout_buffer, 16)


def test_a_stopped_rollout_cannot_be_trained_on() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8)
    model.learn(16, callback=lambda local, _: local["n_steps"] < 5)
    before = weights(model)
    with pytest.raises(ValueError, match="nothing to train on: the rollout buffer has 5 of its 16 steps"):
        model.train()
    assert th.equal(weights(model), before)


@pytest.mark.parametrize("sde", [False, True])
def test_fractions_for_an_integer_buffer_are_refused(sde: bool) -> None:
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(OBSERVATIONS["uint8"])]))
    with pytest.raises(ValueError, match=r"observations have fractions, but their space has dtype uint8.*VecNormalize"):
        TRPO("MlpPolicy", env, n_steps=16, batch_size=8, use_sde=sde).learn(16)
    parts = spaces.Dict({"ram": OBSERVATIONS["uint8"], "vector": OBSERVATIONS["vector"]})
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(parts)]), norm_obs_keys=["ram"])
    with pytest.raises(ValueError, match="observations of 'ram' have fractions"):
        TRPO("MultiInputPolicy", env, n_steps=16, batch_size=8, use_sde=sde).learn(16)


@pytest.mark.parametrize("value", [-1, 4])
def test_a_discrete_observation_outside_its_space_is_refused(value: int) -> None:
    class Outside(RandomEnv):
        def step(self, action: Any) -> Any:
            return (value, *super().step(action)[1:])

    with pytest.raises(ValueError, match=f"a discrete observation must be in 0 to 3, not {value}"):
        TRPO("MlpPolicy", Outside(OBSERVATIONS["discrete"]), n_steps=16, batch_size=8).learn(16)


class InPlaceVecEnv(DummyVecEnv):
    """Writes every observation, reward and done into the arrays that it returned before."""

    def step_wait(self) -> Any:
        super().step_wait()
        return self.buf_obs[None], self.buf_rews, self.buf_dones, self.buf_infos  # type: ignore[index]

    def reset(self) -> Any:
        super().reset()
        return self.buf_obs[None]  # type: ignore[index]


@pytest.mark.parametrize("sde", [False, True], ids=["deferred", "immediate"])
def test_vec_env_may_reuse_its_arrays(sde: bool) -> None:
    def collect(cls: Callable[..., DummyVecEnv]) -> dict[str, np.ndarray]:
        env = cls([lambda: RandomEnv(OBSERVATIONS["float64"], length=5, truncate=True)])
        model = TRPO("MlpPolicy", env, n_steps=16, batch_size=8, seed=4, use_sde=sde)
        arrays: dict[str, np.ndarray] = one_rollout(model).end["arrays"]
        return arrays

    fresh, reused = collect(DummyVecEnv), collect(InPlaceVecEnv)
    for name in ("observations", "actions", "rewards", "values", "returns"):
        np.testing.assert_array_equal(fresh[name], reused[name], err_msg=name)


def test_verbose_says_which_actor_acts(capsys: pytest.CaptureFixture[str]) -> None:
    TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8, verbose=1).learn(16)
    assert "Fast NumPy rollout enabled" in capsys.readouterr().out
    TRPO("MlpPolicy", RandomEnv(), n_steps=16, batch_size=8, verbose=1, use_sde=True).learn(16)
    slow = "Fast NumPy rollout not available, acting with the PyTorch policy: the actions are drawn by a StateDependentNoise"
    assert slow in capsys.readouterr().out


def test_infos_reach_the_statistics_as_in_sb3() -> None:
    infos: list[dict[str, Any]] = [
        {},
        {"episode": {"r": 1.0, "l": 2, "t": 0.0}, "is_success": True},
        {"is_success": False},
        {"episode": {"r": 3.0, "l": 4, "t": 0.0}},
        {"is_success": True},
        {"episode": None, "is_success": None},
    ]
    dones = np.array([True, True, False, False, True, True])
    ours = TRPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8)
    peer = PPO("MlpPolicy", RandomEnv(), n_steps=8, batch_size=8)
    for model in (ours, peer):
        model._setup_learn(8)
        for given in (dones, None, np.zeros(6, dtype=bool)):
            model._update_info_buffer(infos, given)
        model._update_info_buffer([{}, {}], np.array([True, False]))
    assert ours.ep_info_buffer == peer.ep_info_buffer
    assert ours.ep_success_buffer == peer.ep_success_buffer
    assert len(ours.ep_success_buffer or ()) == 2
