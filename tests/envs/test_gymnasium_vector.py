"""Vectorised environments of Gymnasium and ale-py behave as SB3's `DummyVecEnv` on the same seeds."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_trpo import TRPO, GymnasiumVecEnv, MaskableTRPO
from tests.masked_envs import MaskedEnv
from tests.toy_envs import VECTOR, RandomEnv

gym.register_envs(ale_py)
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


class Telling(RandomEnv):
    """Tells its step in its infos, and every third of them another thing."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        info: dict[str, Any] = {"steps": self.steps, "place": np.full(2, self.steps)}
        if self.steps % 3 == 0:
            info |= {"rare": "third", "nested": {"deep": float(self.steps)}}
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed)[0], {"first": True, "options": str(options or None)}


GOALS = spaces.Dict({"goal": spaces.Box(-1.0, 1.0, (2,), np.float32), "place": spaces.Discrete(5)})
MAKERS: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "CartPole-v1": lambda: gym.make("CartPole-v1", max_episode_steps=30),
    "Hopper-v5": lambda: gym.make("Hopper-v5", max_episode_steps=12),
    "dict": lambda: Telling(copy.deepcopy(GOALS), length=5, truncate=True),
    "discrete": lambda: Telling(spaces.Discrete(4), length=4),
}


def assert_same(ours: Any, theirs: Any) -> None:
    """The same values of the same types, arrays and dicts of them included."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    else:
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours).dtype.kind == np.asarray(theirs).dtype.kind


def compare(ours: VecEnv, theirs: VecEnv, n_steps: int) -> np.ndarray:
    """Step both with the same actions, and return the ends and timeouts of each environment."""
    ours.seed(7)
    theirs.seed(7)
    assert_same(ours.reset(), theirs.reset())
    assert_same(dict(enumerate(ours.reset_infos)), dict(enumerate(theirs.reset_infos)))
    ends = np.zeros((2, theirs.num_envs), dtype=int)
    theirs.action_space.seed(0)
    for _ in range(n_steps):
        actions = np.array([theirs.action_space.sample() for _ in range(theirs.num_envs)])
        expected, found = theirs.step(actions), ours.step(actions)
        for a, b in zip(found[:3], expected[:3], strict=True):
            assert_same(a, b)
        for i, (own, info) in enumerate(zip(found[3], expected[3], strict=True)):
            episodes = own.pop("episode", None), info.pop("episode", None)
            assert (episodes[0] is None) == (episodes[1] is None)
            if episodes[0] is not None and episodes[1] is not None:
                assert episodes[0]["r"] == pytest.approx(episodes[1]["r"], rel=1e-5)
                assert episodes[0]["l"] == episodes[1]["l"]
            assert_same(own, info)
            ends[:, i] += expected[2][i], info["TimeLimit.truncated"]
        assert_same(dict(enumerate(ours.reset_infos)), dict(enumerate(theirs.reset_infos)))
    return ends


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MAKERS)
def test_steps_are_those_of_dummy_vec_env(name: str, mode: AutoresetMode) -> None:
    ours = GymnasiumVecEnv(SyncVectorEnv([MAKERS[name]] * 3, autoreset_mode=mode))
    theirs = DummyVecEnv([lambda: Monitor(MAKERS[name]())] * 3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ends, timeouts = compare(ours, theirs, 60)
    assert (ends > 0).all()
    assert (timeouts > 0).any() == (name != "discrete")
    assert name != "CartPole-v1" or (timeouts < ends).any()


def test_processes_step_alike() -> None:
    ours = GymnasiumVecEnv(AsyncVectorEnv([MAKERS["CartPole-v1"]] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    assert compare(ours, DummyVecEnv([lambda: Monitor(MAKERS["CartPole-v1"]())] * 2), 40).sum() > 0
    assert ours.env_method("get_wrapper_attr", "spec")[1].id == "CartPole-v1"
    with pytest.raises(NotImplementedError, match="cannot call `f`: the environments of a AsyncVectorEnv"):
        ours.env_method("f", indices=0)
    ours.close()


def test_games_of_ale_py_match_sb3s() -> None:
    settings: dict[str, Any] = {"frameskip": 4, "repeat_action_probability": 0.0, "max_num_frames_per_episode": 700}
    raw = {"noop_max": 0, "use_fire_reset": False, "reward_clipping": False, "num_threads": 1}
    ours = GymnasiumVecEnv(AtariVectorEnv("breakout", 2, autoreset_mode=AutoresetMode.SAME_STEP, **settings, **raw))  # type: ignore[arg-type]
    theirs = DummyVecEnv([lambda: gym.make("BreakoutNoFrameskip-v4", **settings)] * 2)
    for env in (ours, theirs):
        env.seed(2**31 + 3)
    first, _ = np.array(ours.reset()), theirs.reset()
    rng, ends = np.random.default_rng(0), []
    for _ in range(500):
        actions = np.where(rng.random(2) < 0.2, 1, rng.integers(0, 4, 2))
        observations, rewards, dones, infos = ours.step(actions)
        _, expected, ended, their_infos = theirs.step(actions)
        np.testing.assert_array_equal(rewards, expected)
        np.testing.assert_array_equal(dones, ended)
        for i in np.flatnonzero(dones).tolist():
            assert infos[i]["TimeLimit.truncated"] == their_infos[i]["TimeLimit.truncated"]
            assert infos[i]["terminal_observation"].shape == (4, 84, 84)
            np.testing.assert_array_equal(np.asarray(observations)[i][-1], first[i][-1])  # a new game
            assert not np.array_equal(infos[i]["terminal_observation"][-1], first[i][-1])
            ends.append(infos[i]["TimeLimit.truncated"])
    assert set(ends) == {True, False}
    ours.close()


@pytest.mark.parametrize("mode", MODES)
def test_trpo_takes_a_vector_environment_as_it_is(mode: AutoresetMode) -> None:
    makers = [lambda: gym.make("CartPole-v1", max_episode_steps=20)] * 4
    envs: list[Any] = [SyncVectorEnv(makers, autoreset_mode=mode), DummyVecEnv([lambda: Monitor(makers[0]())] * 4)]
    settings: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "seed": 0, "device": "cpu"}
    models = [TRPO("MlpPolicy", env, **settings).learn(256) for env in envs]
    assert isinstance(models[0].env, GymnasiumVecEnv)
    weights = [np.concatenate([p.detach().numpy().ravel() for p in model.policy.parameters()]) for model in models]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert [e["r"] for e in models[0].ep_info_buffer or []] == [e["r"] for e in models[1].ep_info_buffer or []]
    returns: Any = evaluate_policy(models[0], models[0].env, 4, return_episode_rewards=True)[0]
    assert len(returns) == 4


def test_environments_that_reset_a_step_later_are_refused() -> None:
    later = SyncVectorEnv([MAKERS["CartPole-v1"]])
    with pytest.raises(ValueError, match=r"GymnasiumVecEnv needs an `env` with `autoreset_mode` = .*SAME_STEP"):
        TRPO("MlpPolicy", later)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="GymnasiumVecEnv needs an `env` with `autoreset_mode`"):
        GymnasiumVecEnv(gym.make_vec("CartPole-v1", 2))
    with pytest.raises(TypeError, match=r"`env` must be a gymnasium.vector.VectorEnv, not "):
        GymnasiumVecEnv(gym.make("CartPole-v1"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must step all its 4 environments at once, not 2"):
        GymnasiumVecEnv(AtariVectorEnv("pong", 4, batch_size=2, autoreset_mode=AutoresetMode.SAME_STEP))


def test_attributes_and_methods_reach_the_environments() -> None:
    env = GymnasiumVecEnv(SyncVectorEnv([MAKERS["discrete"]] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    env.set_attr("length", 9, indices=[1])
    assert env.get_attr("length") == [4, 9, 4]
    assert env.get_attr("length", indices=1) == [9]
    assert [first for first, _ in env.env_method("reset", indices=[0, 2])] != [None, None]
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * 3
    assert not env.has_attr("nothing")
    games = GymnasiumVecEnv(AtariVectorEnv("pong", 2, autoreset_mode=AutoresetMode.SAME_STEP))
    assert games.get_attr("grayscale") == [True, True]
    with pytest.raises(NotImplementedError, match="cannot set `x`"):
        games.set_attr("x", 1)
    with pytest.raises(NotImplementedError, match="cannot call `f`"):
        games.env_method("f")


def test_processes_outlive_a_question_for_what_they_lack() -> None:
    env = GymnasiumVecEnv(AsyncVectorEnv([MAKERS["discrete"]] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    try:
        assert not env.has_attr("nothing")
        for ask in (env.get_attr, env.env_method):
            with pytest.raises(AttributeError, match="the environments of the AsyncVectorEnv have no attribute 'nothing'"):
                ask("nothing")
        assert env.get_attr("length") == [4, 4]
        assert env.reset().shape == (2,)  # type: ignore[union-attr]
    finally:
        env.close()


@pytest.mark.parametrize("where", ["info", "env_method"])
def test_masks_of_other_processes_are_found(where: str) -> None:
    models = []
    for vectorise in (SyncVectorEnv, AsyncVectorEnv):
        makers = [partial(MaskedEnv, where=where, observation_space=copy.deepcopy(VECTOR)) for _ in range(2)]
        env = GymnasiumVecEnv(vectorise(makers, autoreset_mode=AutoresetMode.SAME_STEP))
        models.append(MaskableTRPO("MlpPolicy", env, n_steps=16, batch_size=16, seed=0).learn(32))
        env.close()
    for found, expected in zip(*(model.policy.parameters() for model in models), strict=True):
        assert th.equal(found, expected)


def test_options_are_passed_on_and_must_be_shared() -> None:
    env = GymnasiumVecEnv(SyncVectorEnv([MAKERS["discrete"]] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    env.set_options({"a": 1})
    env.reset()
    assert [info["options"] for info in env.reset_infos] == ["{'a': 1}"] * 2
    env.reset()
    assert [info["options"] for info in env.reset_infos] == ["None"] * 2
    env.set_options([{"a": 1}, {"a": 2}])
    with pytest.raises(ValueError, match="share their options"):
        env.reset()


def test_returned_arrays_are_not_overwritten() -> None:
    vector = SyncVectorEnv([MAKERS["dict"]] * 2, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    env = GymnasiumVecEnv(vector)
    kept: list[Any] = [env.reset()]
    copies = [{key: part.copy() for key, part in kept[0].items()}]
    for _ in range(8):
        kept.append(env.step(np.zeros((2, 2)))[0])
        copies.append({key: part.copy() for key, part in kept[-1].items()})
    for a, b in zip(kept, copies, strict=True):
        assert_same(a, b)
