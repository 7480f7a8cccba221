"""EnvPool's environments behave as SB3's."""

import sys
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_trpo import TRPO
from sb3_trpo.envs.atari_envpool import AtariEnvPool
from sb3_trpo.envs.batched import row
from sb3_trpo.envs.envpool import EnvPoolVecEnv, _with_infinite_bounds

gym.register_envs(ale_py)


class FlatExtractor(BaseFeaturesExtractor):
    """Reads every part of a Dict as numbers."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, spaces.flatdim(observation_space))

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        return th.cat([part.flatten(start_dim=1) for part in observations.values()], dim=1)


# Breakout waits for FIRE, MsPacman does not; three at a time, with different actions
@pytest.mark.parametrize(("game", "n_steps", "tolerance"), [("Breakout", 400, 0.05), ("MsPacman", 1000, 0.2)])
@pytest.mark.parametrize("settings", [{}, {"terminal_on_life_loss": False, "clip_reward": False}])
def test_games_match_sb3s_atari_wrapper(game: str, n_steps: int, tolerance: float, settings: dict[str, Any]) -> None:
    theirs = make_atari_env(f"{game}NoFrameskip-v4", 3, seed=0, wrapper_kwargs={"noop_max": 1, **settings})
    ours = AtariEnvPool(f"{game}NoFrameskip-v4", 3, seed=0, num_threads=2, noop_max=1, **settings)
    assert ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    expected: Any = theirs.reset()
    observation: Any = ours.reset()
    ends, n_rewards, episodes = np.zeros(3, dtype=int), 0, []
    for _ in range(n_steps):
        # EnvPool maximises the frames in grey, SB3 in colour
        assert (np.abs(observation[:, 0].astype(int) - expected[..., 0]).mean(axis=(1, 2)) < tolerance).all()
        actions = rng.integers(0, theirs.action_space.n, 3)  # type: ignore[attr-defined]
        expected, reward, done, info = theirs.step(actions)
        observation, own_reward, own_done, own_info = ours.step(actions)
        np.testing.assert_array_equal(own_reward, reward)
        np.testing.assert_array_equal(own_done, done)
        ends += done
        n_rewards += int(np.count_nonzero(reward))
        for i in range(3):
            assert own_info[i]["lives"] == info[i]["lives"]
            assert own_info[i]["TimeLimit.truncated"] == info[i]["TimeLimit.truncated"]
            assert ("episode" in own_info[i]) == ("episode" in info[i])
            if done[i]:
                last = info[i]["terminal_observation"][:, :, 0].astype(int)
                assert np.abs(own_info[i]["terminal_observation"][0] - last).mean() < max(tolerance, 0.15)
            if "episode" in info[i]:
                episodes.append((own_info[i]["episode"], info[i]["episode"]))
    assert n_rewards > 3
    assert (ends > 0).all()
    assert ends.sum() > len(episodes) if "terminal_on_life_loss" not in settings else ends.sum() == len(episodes)
    assert episodes
    for own_episode, episode in episodes:
        assert own_episode["r"] == episode["r"]
        assert abs(own_episode["l"] - episode["l"]) <= 4


def test_a_game_is_truncated_as_in_gymnasium() -> None:
    for frame_skip in (1, 4):
        env = AtariEnvPool("Pong", frame_skip=frame_skip)
        assert env.get_attr("config")[0]["max_episode_steps"] * frame_skip == 108_000
        env.close()
    assert gym.spec("PongNoFrameskip-v4").kwargs["max_num_frames_per_episode"] == 108_000


def test_the_full_action_space_has_fire_in_every_game() -> None:
    settings = {"full_action_space": True}
    theirs = make_atari_env("FreewayNoFrameskip-v4", 1, seed=0, wrapper_kwargs={"noop_max": 1}, env_kwargs=settings)
    ours = AtariEnvPool("Freeway", 1, seed=0, num_threads=1, noop_max=1, **settings)
    assert ours.action_space == theirs.action_space
    expected, observation = theirs.reset(), ours.reset()
    assert isinstance(expected, np.ndarray)
    assert isinstance(observation, np.ndarray)
    assert np.abs(observation[0, 0].astype(int) - expected[0, :, :, 0]).mean() < 0.05


def test_sticky_actions_follow_the_id() -> None:
    probability = "repeat_action_probability"
    assert AtariEnvPool("ALE/Pong-v5").get_attr("config")[0][probability] == 0.25
    assert AtariEnvPool("PongNoFrameskip-v4").get_attr("config")[0][probability] == 0.0
    assert AtariEnvPool("ALE/Pong-v5", repeat_action_probability=0.0).get_attr("config")[0][probability] == 0.0


def test_an_end_resets_within_the_step() -> None:
    env = EnvPoolVecEnv("Hopper-v5", 3, seed=0, num_threads=1)
    env.reset()
    lengths, returns, checked = np.zeros(3, dtype=int), np.zeros(3), 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        observations, rewards, dones, infos = env.step(rng.uniform(-1.0, 1.0, (3, 3)).astype(np.float32))
        assert isinstance(observations, np.ndarray)
        lengths += 1
        returns += rewards
        for i in np.flatnonzero(dones):
            info = infos[i]
            assert info["episode"]["l"] == lengths[i]
            assert info["episode"]["r"] == pytest.approx(returns[i], abs=1e-3)
            assert info["TimeLimit.truncated"] is False
            # a hopper begins at a height of 1.25 at rest; it has ended elsewhere
            assert abs(observations[i, 0] - 1.25) < 0.01
            assert np.abs(info["terminal_observation"] - observations[i]).max() > 0.1
            lengths[i], returns[i], checked = 0, 0.0, checked + 1
    assert checked > 5


def test_a_time_limit_is_distinguished_from_an_end() -> None:
    env = EnvPoolVecEnv("HalfCheetah-v5", 2, seed=0, num_threads=1, max_episode_steps=7)
    env.reset()
    for step in range(1, 22):
        _, _, dones, infos = env.step(np.zeros((2, 6)))
        assert dones.tolist() == [step % 7 == 0] * 2
        assert [info["TimeLimit.truncated"] for info in infos] == [step % 7 == 0] * 2


def test_returned_arrays_are_not_overwritten() -> None:
    env = AtariEnvPool("Pong", 2, seed=0, num_threads=1)
    kept = [env.reset()]
    copies = [np.array(kept[0])]
    for _ in range(30):
        kept.append(env.step(np.array([2, 3]))[0])
        copies.append(np.array(kept[-1]))
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("later", [False, True])
def test_seed_repeats_the_run(later: bool) -> None:
    runs = []
    for _ in range(2):
        env = EnvPoolVecEnv("Hopper-v5", 2, None if later else 5, num_threads=1)
        if later:
            env.seed(2**31 + 5)
        runs.append([env.reset(), *(env.step(np.full((2, 3), 0.5))[0] for _ in range(40))])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0][0], runs[0][0][1])  # type: ignore[index]


def test_trpo_learns_and_is_evaluated_on_it() -> None:
    env = VecNormalize(EnvPoolVecEnv("Hopper-v5", 4, seed=0, num_threads=1))
    model = TRPO("MlpPolicy", env, n_steps=64, batch_size=64, seed=0).learn(512)
    assert len(model.ep_info_buffer or []) > 0
    returns: Any = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)[0]
    assert len(returns) == 4

    images = VecFrameStack(AtariEnvPool("Breakout", 2, num_threads=1), 4)
    assert isinstance(images.observation_space, spaces.Box)
    assert images.observation_space.shape == (4, 84, 84)
    TRPO("CnnPolicy", images, n_steps=8, batch_size=16, n_critic_updates=1, cg_max_steps=2).learn(16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnvPoolVecEnv("Foo-v5"), "no environment `env_id` = 'Foo-v5'"),
        (lambda: EnvPoolVecEnv("Hopper-v5", 0), "`n_envs` must be an integer >= 1, not 0"),
        (lambda: EnvPoolVecEnv("Hopper-v5", "2"), "`n_envs` must be an integer >= 1, not '2'"),  # type: ignore[arg-type]
        (lambda: EnvPoolVecEnv("Hopper-v5", num_threads=-1), "`num_threads` must be an integer >= 0, not -1"),
        (lambda: EnvPoolVecEnv("Hopper-v5", seed=0.5), "`seed` must be an integer >= 0, not 0.5"),  # type: ignore[arg-type]
        (lambda: AtariEnvPool("Nogame"), "no environment `env_id` = 'Nogame-v5'"),
        (lambda: AtariEnvPool("ALE/Pong-v6"), "must be like 'Breakout'"),
        (lambda: EnvPoolVecEnv("Go9x9-v1"), "`env_id` = 'Go9x9-v1' must be an environment of one player, and it has 2"),
        (lambda: EnvPoolVecEnv("Hopper-v5", num_envs=3), "`num_envs` = 3 cannot be set here; use `n_envs`"),
        (lambda: EnvPoolVecEnv("Hopper-v5", 2, batch_size=1), "`batch_size` = 1 cannot be set here"),
        (lambda: AtariEnvPool("Pong", episodic_life=False), "`episodic_life` = False .* use `terminal_on_life_loss`"),
        (lambda: AtariEnvPool("Pong", frame_skip=0), "`frame_skip` must be an integer >= 1, not 0"),
        (lambda: AtariEnvPool("Pong", noop_max=0), "`noop_max` must be an integer >= 1, not 0"),
    ],
)
def test_bad_input_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "actions", "message"),
    [
        (lambda: EnvPoolVecEnv("Hopper-v5", 2), np.zeros((1, 3)), r"`actions` must be of shape \(2, 3\), not \(1, 3\)"),
        (lambda: EnvPoolVecEnv("Hopper-v5", 2), np.zeros(6), r"`actions` must be of shape \(2, 3\), not \(6,\)"),
        (lambda: AtariEnvPool("Pong", 2), np.array([2, 3, 4]), r"`actions` must be of shape \(2,\), not \(3,\)"),
        (lambda: AtariEnvPool("Pong", 2), np.array([0, 6]), "an action must be in 0 to 5, not 6"),
        (lambda: AtariEnvPool("Pong", 2), np.array([-1, 0]), "an action must be in 0 to 5, not -1"),
        (lambda: AtariEnvPool("Pong", 2), np.array([0, np.nan]), "an action must be a whole number in 0 to 5, not nan"),
        (lambda: AtariEnvPool("Pong", 2), np.array([0.9, 0]), "an action must be a whole number in 0 to 5, not 0.9"),
        (lambda: AtariEnvPool("Pong", 2), np.array([0, np.inf]), "an action must be a whole number in 0 to 5, not inf"),
        (lambda: AtariEnvPool("Pong", 2), np.array([-0.5, 1]), "an action must be a whole number in 0 to 5, not -0.5"),
    ],
)
def test_actions_that_do_not_fit_are_refused(make: Any, actions: np.ndarray, message: str) -> None:
    env = make()
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(actions)
    env.close()


def test_whole_numbers_may_be_floats() -> None:
    env = EnvPoolVecEnv("Pong-v5", 2)
    env.reset()
    observations, *_ = env.step(np.array([1.0, 0.0]))
    assert len(observations) == 2
    env.close()


@pytest.mark.parametrize(
    ("space", "actions", "message"),
    [
        (spaces.MultiDiscrete([2, 3]), [[1, 2], [0, 3]], "an action must be in 0 to 2, not 3"),
        (spaces.MultiDiscrete([2, 3]), [[1, 2], [0.5, 0]], "an action must be a whole number in 0 to 1, not 0.5"),
        (spaces.Box(-4, np.array([1, 9]), (2,), np.int32), [[1, 9], [-5, 0]], "an action must be in -4 to 1, not -5"),
        (spaces.Box(-4, 9, (2,), np.int32), [[np.nan, 9], [0, 0]], "an action must be a whole number in -4 to 9, not nan"),
        (spaces.Discrete(3, start=2), [1, 2], "an action must be in 2 to 4, not 1"),
    ],
)
def test_every_kind_of_whole_action_is_checked(
    space: spaces.Space[Any], actions: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = EnvPoolVecEnv("Pong-v5", 2)
    monkeypatch.setattr(env, "action_space", space)
    with pytest.raises(ValueError, match=message):
        env.step_async(np.array(actions))
    env.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_of_numbers_are_no_bounds(dtype: Any) -> None:
    limit = np.finfo(dtype)
    for low in (limit.tiny, limit.min, np.finfo(np.float32).tiny, -np.inf):
        given = spaces.Box(np.array([low, -1.0], dtype), np.array([limit.max, 0.5], dtype), dtype=dtype)
        assert _with_infinite_bounds(given) == spaces.Box(
            np.array([-np.inf, -1.0], dtype), np.array([np.inf, 0.5], dtype), dtype=dtype
        )
    for space in (spaces.Box(0.0, 1.0, (2,), dtype), spaces.Box(0, 2**31 - 1, (2,), np.int32), spaces.Discrete(2)):
        assert _with_infinite_bounds(space) == space


def test_an_environment_without_bounds_of_actions_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # ViZDoom writes files there
    env = EnvPoolVecEnv("D1Basic-v1", 1, seed=0)
    assert isinstance(env.action_space, spaces.Box)
    assert env.action_space.low.tolist() == [-np.inf] * 3
    assert env.action_space.high.tolist() == [np.inf] * 3
    with pytest.raises(AssertionError, match="must have a finite lower and upper bound"):
        TRPO("PaperCnnPolicy", env, n_steps=16, batch_size=16, device="cpu")
    env.close()


def test_an_end_at_the_time_limit_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    env = EnvPoolVecEnv("Hopper-v5", 2, seed=0)
    env.reset()
    both = np.array([True, False])
    advance = env._advance

    def at_the_limit(actions: np.ndarray, ids: np.ndarray) -> Any:
        observations, rewards, _, _, infos = advance(actions, ids)
        return observations, rewards, both, both, infos

    monkeypatch.setattr(env, "_advance", at_the_limit)
    _, _, dones, infos = env.step(np.zeros((2, 3)))
    np.testing.assert_array_equal(dones, both)
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False]
    env.close()


@pytest.mark.parametrize("package", ["envpool", "ale_py"])
def test_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install sb3-trpo\[envpool\]"):
        AtariEnvPool("Pong")


def test_environments_have_no_separate_attributes_or_methods() -> None:
    env = EnvPoolVecEnv("Hopper-v5", 2)
    with pytest.raises(NotImplementedError, match="attributes"):
        env.set_attr("x", 1)
    with pytest.raises(NotImplementedError, match="methods"):
        env.env_method("f")
    env.close()


def test_pools_without_a_seed_differ() -> None:
    unseeded: list[Any] = [EnvPoolVecEnv("HalfCheetah-v5", n_envs=2).reset() for _ in range(2)]
    assert not np.array_equal(*unseeded)
    seeded: list[Any] = [EnvPoolVecEnv("HalfCheetah-v5", n_envs=2, seed=3).reset() for _ in range(2)]
    assert np.array_equal(*seeded)


@pytest.mark.parametrize(
    ("env_id", "policy", "keys"),
    [
        ("CheetahRun-v1", "MultiInputPolicy", ["position", "velocity"]),
        ("MiniGrid-Empty-5x5-v0", "MultiInputPolicy", ["direction", "image", "mission"]),
        ("Maze-v0", "MultiInputPolicy", ["action_mask", "agent_position/col", "agent_position/row", "step_count"]),
        ("FrozenLake-v1", "MlpPolicy", []),
        ("Blackjack-v1", "MlpPolicy", []),
    ],
)
def test_observations_of_every_space_can_be_learned_from(env_id: str, policy: str, keys: list[str]) -> None:
    env = EnvPoolVecEnv(env_id, 3, seed=0, num_threads=1)
    first, n_ends = env.reset(), 0
    if keys:
        assert isinstance(env.observation_space, spaces.Dict)
        assert set(keys) <= env.observation_space.spaces.keys() == first.keys()  # type: ignore[union-attr]
    for _ in range(120):
        observations, _, dones, infos = env.step(np.array([env.action_space.sample() for _ in range(3)]))
        n_ends += int(dones.sum())
        seen = [row(observations, i) for i in range(3)]
        seen += [info["terminal_observation"] for info in infos if "terminal_observation" in info]
        assert all(env.observation_space.contains(one) for one in seen)
    assert n_ends > 0 or env_id in ("CheetahRun-v1", "MiniGrid-Empty-5x5-v0")
    flat = {"features_extractor_class": FlatExtractor} if env_id.startswith("MiniGrid") else {}  # its images are small
    TRPO(policy, env, n_steps=16, batch_size=16, seed=0, device="cpu", policy_kwargs=flat).learn(48)
    env.close()


def test_terminal_observations_of_dicts_are_the_last() -> None:
    env = EnvPoolVecEnv("CheetahRun-v1", 2, seed=0, num_threads=1, max_episode_steps=3)
    pushed = np.ones((2, 6))
    env.reset()
    before = [env.step(pushed)[0] for _ in range(2)][-1]
    observations, _, dones, infos = env.step(pushed)
    assert dones.all()
    for i in range(2):
        last = infos[i]["terminal_observation"]
        assert last.keys() == {"position", "velocity"}
        # the cheetah moves on from the state before, and begins again slower
        assert np.abs(last["position"] - before["position"][i]).max() < 0.2  # type: ignore[call-overload]
        assert np.abs(last["velocity"]).max() > 2.0 * np.abs(observations["velocity"][i]).max()  # type: ignore[call-overload]
        assert infos[i]["TimeLimit.truncated"]
    env.close()


def test_infos_are_envpools_and_successes_are_logged() -> None:
    env = EnvPoolVecEnv("Hopper-v5", 2, seed=0, num_threads=1)
    env.reset()
    first, second = env.step(np.zeros((2, 3)))[3]
    assert {"x_position", "x_velocity"} <= first.keys()
    assert "env_id" not in first
    assert first["x_velocity"] != second["x_velocity"]
    env.close()

    env = EnvPoolVecEnv("MetaWorld/DoorOpen-v3", 2, seed=0, num_threads=1, max_episode_steps=8)
    model = TRPO("MlpPolicy", env, n_steps=16, batch_size=32, seed=0, device="cpu").learn(32)
    assert list(model.ep_success_buffer or []) == [False] * 4
    env.close()
