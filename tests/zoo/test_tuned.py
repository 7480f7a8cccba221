"""Entries of the hyperparameter files for Python: what ``tuned`` returns builds what ``sb3-trpo train`` builds."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize, VecTransposeImage

from sb3_trpo import TRPO, RecurrentTRPO, VineTRPO
from sb3_trpo.zoo import ALGORITHMS, hyperparameters_file, tuned
from sb3_trpo.zoo.tuned import read_entry

# the Zoo and the libraries that it searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")

ENTRIES = [
    (algorithm, env_id)
    for algorithm in ALGORITHMS
    if algorithm != "vine_trpo"  # the file of trpo
    for env_id in yaml.safe_load(hyperparameters_file(algorithm).read_text())
    if env_id not in ("default", "common", "atari", "Taxi-v3")  # Taxi-v3 does not run any more
    if not env_id.endswith("-v4")
    or env_id == "Ant-v4"  # the others equal those of v5, as another test tells
    or env_id == "Taxi-v4"
]
GAMES = [("trpo", "ALE/Pong-v5")]
LATE_DEFAULTS = {"policy_kwargs", "learning_rate", "policy"}
"""Arguments that models keep in another form; the weights and the schedule are compared instead."""


def as_trained(env_id: str, algorithm: str, folder: Path) -> OnPolicyAlgorithm:
    """Make the model of ``sb3-trpo train``."""
    manager = ExperimentManager(
        argparse.Namespace(),
        algorithm,
        env_id,
        str(folder),
        config=str(hyperparameters_file(algorithm)),
        device="cpu",
        verbose=0,
        eval_freq=-1,
    )
    experiment = manager.setup_experiment()
    assert experiment is not None
    model = experiment[0]
    assert isinstance(model, OnPolicyAlgorithm)
    model.budget = manager.n_timesteps  # type: ignore[attr-defined]
    return model


def wrappers(env: VecEnv | None) -> list[Any]:
    """List the wrappers from the outside, with what they do; SB3 adds the transposition of images if it is missing."""
    found: list[Any] = []
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize):
            found.append((VecNormalize, env.gamma, env.norm_obs, env.norm_reward, env.clip_obs, env.training))
        elif isinstance(env, VecFrameStack):
            found.append((VecFrameStack, env.observation_space))
        elif not isinstance(env, VecTransposeImage):
            found.append(type(env))
        env = env.venv
    assert env is not None
    arguments = {name: value for name, value in env.get_attr("spec")[0].kwargs.items() if name != "render_mode"}
    return [*found, type(env), env.num_envs, arguments]


@pytest.mark.parametrize(("algorithm", "env_id"), [*ENTRIES, *GAMES])
def test_builds_what_the_command_builds(algorithm: str, env_id: str, tmp_path: Path) -> None:
    theirs, entry = as_trained(env_id, algorithm, tmp_path), tuned(env_id, algorithm)
    env = entry.make_env(seed=0)
    ours = ALGORITHMS[algorithm](env=env, seed=0, device="cpu", **entry.arguments)
    assert type(ours) is type(theirs) is entry.algorithm
    assert entry.n_timesteps == theirs.budget  # type: ignore[attr-defined]
    for name in (entry.arguments.keys() & vars(ours).keys()) - LATE_DEFAULTS:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.lr_schedule(0.5) == theirs.lr_schedule(0.5)
    assert wrappers(ours.env) == wrappers(theirs.env)
    assert ours.env is not None
    assert theirs.env is not None
    np.testing.assert_array_equal(ours.env.reset(), theirs.env.reset())
    weights, expected = ours.policy.state_dict(), theirs.policy.state_dict()
    assert weights.keys() == expected.keys()
    assert all(th.equal(weights[name], expected[name]) for name in weights)
    ours.env.close()
    theirs.env.close()


def test_trains_as_the_command_trains(tmp_path: Path) -> None:
    entry = tuned("Hopper-v5")
    theirs = as_trained("Hopper-v5", "trpo", tmp_path).learn(4_096)
    ours = TRPO(env=entry.make_env(seed=0), seed=0, device="cpu", **entry.arguments).learn(4_096)
    for model in (ours, theirs):
        assert model.env is not None
        model.env.close()
    assert ours.num_timesteps == 4_096
    assert all(th.equal(a, b) for a, b in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True))


def test_three_lines_are_enough() -> None:
    from stable_baselines3.common.env_util import make_vec_env

    entry = tuned("Walker2d-v5")
    assert entry.normalize == {"gamma": 0.99}
    env = VecNormalize(make_vec_env("Walker2d-v5", seed=0, **entry.vec_env), **entry.normalize)
    model = TRPO(env=env, seed=0, **entry.arguments)
    assert (model.n_envs, model.target_kl, model.n_steps) == (2, 0.06, 2048)


def test_an_evaluation_keeps_the_statistics_and_the_rewards() -> None:
    env = tuned("Ant-v5").make_env(seed=1, evaluation=True, n_envs=1)
    assert isinstance(env, VecNormalize)
    assert env.num_envs == 1
    assert not env.training
    assert not env.norm_reward
    assert env.norm_obs


def test_marks_and_other_algorithms() -> None:
    assert tuned("Hopper-v5").is_tuned
    assert tuned("Ant-v4").is_tuned
    assert not tuned("CartPole-v1").is_tuned
    assert not tuned("BipedalWalker-v3").is_tuned
    assert tuned("PongNoFrameskip-v4").is_tuned
    assert tuned("PongNoFrameskip-v4").entry == "atari"
    assert tuned("PongNoFrameskip-v4").frame_stack == 4
    assert tuned("Hopper-v5", "vine_trpo").algorithm is VineTRPO
    assert tuned("CartPoleNoVel-v1", "trpo_lstm").algorithm is RecurrentTRPO


def test_no_call_changes_the_next() -> None:
    first = tuned("Ant-v5")
    first.arguments["policy_kwargs"]["log_std_init"] = 3.0
    first.vec_env["n_envs"] = 1
    assert tuned("Ant-v5").arguments["policy_kwargs"] == {"log_std_init": -1}
    assert tuned("Ant-v5").vec_env["n_envs"] == 8


def test_missing_entries_are_named() -> None:
    with pytest.raises(ValueError, match=r"entry for TRPO: CartPole-v1, .*Walker2d-v5.*Atari game; not 'Hopper-v6'$"):
        tuned("Hopper-v6")
    with pytest.raises(ValueError, match=r"entry for TRPO: .*; not 'FrozenLake-v1'; allow_default=True gives the defaults"):
        tuned("FrozenLake-v1")
    with pytest.raises(ValueError, match=r"entry for MaskableTRPO: Taxi-v4, Taxi-v3; not 'Hopper-v5'"):
        tuned("Hopper-v5", "maskable_trpo")
    with pytest.raises(ValueError, match=r"`env_id` must have an entry for TRPO: .*; not 3$"):
        tuned(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`algorithm` must be one of trpo, .*, not 'ppo'"):
        tuned("Hopper-v5", "ppo")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_has_a_default(algorithm: str) -> None:
    entry = tuned("CliffWalking-v1", algorithm, allow_default=True)
    assert (entry.entry, entry.is_tuned, entry.n_timesteps, entry.normalize) == ("default", False, 1_000_000, None)
    assert entry.arguments.keys() == {"policy"}
    assert entry.vec_env == {"n_envs": 1}


def test_arguments_of_the_normalisation() -> None:
    text = "CartPole-v1: {policy: MlpPolicy, n_timesteps: 10, gamma: 0.9, normalize: {norm_reward: false, clip_obs: 5}}"
    assert read_entry(text, "CartPole-v1", TRPO, False).normalize == {"norm_reward": False, "clip_obs": 5, "gamma": 0.9}
    text = "CartPole-v1: {policy: MlpPolicy, n_timesteps: 10, normalize: false}"
    assert read_entry(text, "CartPole-v1", TRPO, False).normalize is None
