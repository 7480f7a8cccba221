"""
Measure the cost of a transition as the number of environments grows: collection and update, without that of the environments.

The environments are a toy in NumPy that costs little: a random walk of four numbers, whose episodes end one by one. Every
rollout has 16,384 transitions. Collection is measured in turns with that of SB3's PPO. The script prints a Markdown table, in
microseconds per transition::

    python -m benchmarks.many_envs
"""

import argparse
import sys
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.common.tables import print_head, print_row
from benchmarks.common.timing import in_turns, seconds
from sb3_trpo import TRPO

N_ENVS = (1, 4, 16, 64, 256, 1024)
TRANSITIONS = 16_384


class Walks(VecEnv):
    """
    Random walks, all in one array.

    :param n_envs: their number
    :param length: steps of an episode, which a time limit ends
    """

    def __init__(self, n_envs: int, length: int = 200) -> None:
        actions = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
        super().__init__(n_envs, spaces.Box(-np.inf, np.inf, (4,), dtype=np.float32), actions)
        self._length = length
        self._rng = np.random.default_rng(0)
        self._places = np.zeros((n_envs, 4), dtype=np.float32)
        self._ages = np.arange(n_envs) % length
        self._actions = np.zeros((n_envs, 2), dtype=np.float32)

    def reset(self) -> np.ndarray:
        """Go back to the start."""
        self._places[:] = 0.0
        return self._places.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Move all walks."""
        self._places[:, :2] += self._actions
        self._places[:, 2:] = self._rng.standard_normal((self.num_envs, 2))
        rewards = -np.abs(self._places[:, 0])
        self._ages += 1
        dones = self._ages >= self._length
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones).tolist():
            episode = {"r": float(rewards[i]), "l": self._length, "t": 0.0}
            infos[i] = {"terminal_observation": self._places[i].copy(), "TimeLimit.truncated": True, "episode": episode}
        self._places[dones] = 0.0
        self._ages[dones] = 0
        return self._places.copy(), rewards, dones, infos

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return None for every environment, which have no attributes."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Do nothing: environments have no attributes."""

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Return None for every environment, which have no methods."""
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Tell that no environment is wrapped."""
        return [False] * self.num_envs


class Silent(BaseCallback):
    """Does nothing."""

    def _on_step(self) -> bool:
        return True


def collection(model: OnPolicyAlgorithm) -> float:
    """
    Collect a rollout.

    :param model: the model
    :return: seconds
    """
    _, callback = model._setup_learn(TRANSITIONS, Silent())
    env = model.env
    assert env is not None
    return seconds(lambda: model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps))


def environment_alone(n_envs: int) -> float:
    """
    Step the environments as often as a rollout does.

    :param n_envs: their number
    :return: seconds
    """
    env, actions = Walks(n_envs), np.zeros((n_envs, 2), dtype=np.float32)

    def steps() -> None:
        for _ in range(TRANSITIONS // n_envs):
            env.step(actions)

    return seconds(steps)


def measure(n_envs: int, rounds: int) -> list[float]:
    """
    Measure one number of environments.

    :param n_envs: their number
    :param rounds: turns of both sides
    :return: microseconds per transition: our collection and PPO's without the environments, our update, the environments;
        and last how many times as fast our collection is
    """
    settings: dict[str, Any] = {"n_steps": TRANSITIONS // n_envs, "batch_size": 128, "seed": 0, "device": "cpu"}
    ours, peer = TRPO("MlpPolicy", Walks(n_envs), **settings), PPO("MlpPolicy", Walks(n_envs), **settings)
    for model in (ours, peer):
        collection(model)
    alone = min(environment_alone(n_envs) for _ in range(rounds))
    collect = in_turns(lambda: collection(ours) - alone, lambda: collection(peer) - alone, rounds)
    ours.train()
    update = min(seconds(ours.train) for _ in range(rounds))
    return [1e6 * part / TRANSITIONS for part in (collect.ours, collect.peer, update, alone)] + [collect.ratio]


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The cost of a transition as the number of environments grows.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both sides")
    rounds = parser.parse_args(arguments).rounds
    th.set_num_threads(1)
    print_head("environments", "our collection, µs", "PPO's, µs", "times as fast", "our update, µs", "environments alone, µs")
    for n_envs in N_ENVS:
        ours, peer, update, alone, ratio = measure(n_envs, rounds)
        print_row(f"{n_envs:,}", f"{ours:.2f}", f"{peer:.2f}", f"{ratio:.1f}", f"{update:.2f}", f"{alone:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
