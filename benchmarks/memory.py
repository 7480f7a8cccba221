"""
Compare RecurrentTRPO with sb3-contrib's RecurrentPPO in turns: env steps a second of whole runs, the update alone, and the
bytes of a rollout.

Whole runs use the entries of ``zoo_hyperparams/trpo_lstm.yml``, and RL Zoo's own for RecurrentPPO. On the Dict of images both
have the same rollout, policy and mini-batches; ours draws a quarter of the windows for the Fisher matrix, and its critic has
four passes. The updates alone have 2,048 steps of 8 environments, mini-batches of 256 steps and 10 passes. One thread,
medians::

    python -m benchmarks.memory --rounds 3
"""

import argparse
import os
import sys
import tempfile
from contextlib import redirect_stdout
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch are imported

import gymnasium as gym
import numpy as np
import rl_zoo3.import_envs  # noqa: F401  registers the environments without velocities
import torch as th
from gymnasium import spaces
from rl_zoo3.exp_manager import ExperimentManager
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.tables import print_head, print_row
from benchmarks.common.timing import Comparison, in_turns, seconds
from sb3_trpo import RecurrentTRPO
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.zoo import hyperparameters_file

TASKS = ("CartPoleNoVel-v1", "PendulumNoVel-v1")
STEPS = 8_192
N_ENVS = 8
UPDATE_STEPS = 256
"""Steps of each environment in a rollout whose update is timed."""


class Images(gym.Env[Any, Any]):
    """Noise in a Dict of a small image and a vector; episodes of 50 steps."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (1, 36, 36), np.uint8), "vector": spaces.Box(-1.0, 1.0, (3,), np.float32)}
    )
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._age = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count the steps."""
        self._age += 1
        return self._observe(), float(action == self._age % 3), self._age == 50, False, {}

    def _observe(self) -> dict[str, np.ndarray]:
        image = self.np_random.integers(0, 256, (1, 36, 36), dtype=np.uint8)
        return {"image": image, "vector": np.full(3, self._age / 50, dtype=np.float32)}


def zoo_model(algorithm: str, env_id: str, folder: str) -> OnPolicyAlgorithm:
    """
    Make a model as RL Zoo does.

    :param algorithm: its name in RL Zoo
    :param env_id: the environment
    :param folder: where the Zoo writes
    :return: the model
    """
    config = str(hyperparameters_file(algorithm)) if algorithm == "trpo_lstm" else None
    manager = ExperimentManager(
        argparse.Namespace(), algorithm, env_id, folder, config=config, device="cpu", verbose=0, eval_freq=-1, seed=0
    )
    with redirect_stdout(None):
        made = manager.setup_experiment()
    assert made is not None
    model = made[0]
    assert isinstance(model, OnPolicyAlgorithm)
    return model


def image_model(model_class: Any, **settings: Any) -> OnPolicyAlgorithm:
    """
    Make a model for the Dict of images.

    :param model_class: the class
    :param settings: further arguments
    :return: the model
    """
    options: dict[str, Any] = {"n_steps": 64, "batch_size": 128, "seed": 0, "device": "cpu", **settings}
    model: OnPolicyAlgorithm = model_class(
        "MultiInputLstmPolicy", make_vec_env(Images, 4), policy_kwargs={"lstm_hidden_size": 64}, **options
    )
    return model


def whole_run(models: tuple[OnPolicyAlgorithm, OnPolicyAlgorithm], steps: int, rounds: int) -> Comparison:
    """
    Time whole runs, after a first rollout of each.

    :param models: ours and the peer
    :param steps: env steps of a round
    :param rounds: turns of both sides
    :return: env steps a second
    """
    for model in models:
        model.learn(model.n_steps * model.n_envs)

    def run(model: OnPolicyAlgorithm) -> float:
        size = model.n_steps * model.n_envs
        taken = -(-steps // size) * size
        return seconds(lambda: model.learn(taken)) * steps / taken

    return in_turns(lambda: run(models[0]), lambda: run(models[1]), rounds).rates(steps)


def updates(env_id: str, hidden: int, rounds: int) -> Comparison:
    """
    Time updates on a rollout, each from the same weights.

    :param env_id: the environment
    :param hidden: units of the LSTM
    :param rounds: turns of both sides
    :return: seconds
    """
    options: dict[str, Any] = {"n_steps": UPDATE_STEPS, "batch_size": 256, "seed": 0, "device": "cpu"}
    options["policy_kwargs"] = {"lstm_hidden_size": hidden, "net_arch": {"pi": [64], "vf": [64]}}
    makers: tuple[Any, Any] = (RecurrentTRPO, RecurrentPPO)
    pair = []
    for maker in makers:
        model = maker("MlpLstmPolicy", make_vec_env(env_id, N_ENVS, seed=0), **options)
        _, callback = model._setup_learn(10**6)
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        weights = {name: value.clone() for name, value in model.policy.state_dict().items()}

        def update(model: Any = model, weights: Any = weights) -> float:
            model.policy.load_state_dict(weights)
            return seconds(model.train)

        update()
        pair.append(update)
    return in_turns(pair[0], pair[1], rounds)


def rollout_bytes(model_class: Any, n_steps: int, n_envs: int, hidden: int) -> int:
    """
    Count the bytes that a model keeps of a rollout, states of the LSTM included.

    :param model_class: the class
    :param n_steps: steps of each environment
    :param n_envs: number of environments
    :param hidden: units of the LSTM
    :return: bytes
    """
    env = make_vec_env(TASKS[0], n_envs)
    options = {"n_steps": n_steps, "batch_size": n_envs * n_steps, "policy_kwargs": {"lstm_hidden_size": hidden}}
    model = model_class("MlpLstmPolicy", env, **options)
    model.rollout_buffer.reset()
    arrays = [value for value in vars(model.rollout_buffer).values() if isinstance(value, np.ndarray)]
    kept = sum(value.nbytes for value in arrays)
    if model_class is RecurrentTRPO:
        assert isinstance(model.interface, RecurrentInterface)
        before = model.interface.memory_before(th.ones(n_envs, dtype=th.bool))
        kept += 2 * sum(part.numel() * part.element_size() for part in before)  # at the first step and now
    return kept


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of both sides")
    parser.add_argument("--steps", type=int, default=STEPS, help="env steps of a whole run")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Print the three tables."""
    options = parse(arguments)
    th.set_num_threads(1)
    print_head("whole run", "RecurrentTRPO, steps/s", "RecurrentPPO, steps/s", "times as fast")
    with tempfile.TemporaryDirectory() as folder:
        for env_id in TASKS:
            pair = (zoo_model("trpo_lstm", env_id, folder), zoo_model("ppo_lstm", env_id, folder))
            _print(env_id, whole_run(pair, options.steps, options.rounds), "{:,.0f}")
    pair = (image_model(RecurrentTRPO, fisher_sample_fraction=0.25, n_critic_updates=4), image_model(RecurrentPPO))
    _print("Dict of images", whole_run(pair, options.steps // 16, options.rounds), "{:,.0f}")
    print()
    print_head("update alone", "RecurrentTRPO, s", "RecurrentPPO, s", "times as fast")
    for env_id in TASKS:
        for hidden in (64, 256):
            _print(f"{env_id}, {hidden} units", updates(env_id, hidden, options.rounds), "{:.2f}")
    print()
    print_head("rollout, 256 units", "RecurrentTRPO, MB", "RecurrentPPO, MB", "share")
    for n_steps, n_envs in ((128, 8), (2048, 32)):
        ours, theirs = (rollout_bytes(cls, n_steps, n_envs, 256) for cls in (RecurrentTRPO, RecurrentPPO))
        print_row(f"{n_steps:,} steps, {n_envs} envs", f"{ours / 1e6:.1f}", f"{theirs / 1e6:.1f}", f"{ours / theirs:.3f}")


def _print(name: str, result: Comparison, form: str) -> None:
    print_row(name, form.format(result.ours), form.format(result.peer), f"{result.ratio:.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
