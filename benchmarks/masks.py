"""
Measure whole runs with action masks, in turns with sb3-contrib's MaskablePPO, and the overhead of masks over runs without.

Each environment has its masks ready, so that the time is that of the libraries: sb3-contrib's identity environment with 70
actions of which 55 are forbidden, whose own masks take longer than a step of the training and are computed here faster; Taxi,
whose masks come with its infos (sb3-contrib reads them from a wrapper); and 2,000 actions. One thread, medians.

Masks change the problem: the update may take more or fewer products than without them. So the overhead is also measured with
masks that allow everything, where both runs are the same, bit for bit. The script prints a Markdown table, in env steps per
second::

    python -m benchmarks.masks
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.tables import print_head, print_row
from sb3_trpo import TRPO, MaskableTRPO

N_STEPS = 2048
ROLLOUTS = 2


class FastIdentity(InvalidActionEnvDiscrete):
    """
    sb3-contrib's environment, with its masks and forbidden actions computed by NumPy.

    :param n_actions: number of actions
    :param n_invalid_actions: number of those that a state forbids
    """

    def __init__(self, n_actions: int, n_invalid_actions: int) -> None:
        self._n = n_actions
        super().__init__(dim=n_actions, n_invalid_actions=n_invalid_actions)

    def _choose_next_state(self) -> None:
        self.state = int(self.action_space.sample())
        self._masks = np.ones(self._n, dtype=np.bool_)
        others = np.random.default_rng(self.state).permutation(len(self._masks) - 1)[: self.n_invalid_actions]
        self._masks[others + (others >= self.state)] = False

    def action_masks(self) -> np.ndarray:  # type: ignore[override]
        """Return the mask of the present state."""
        return self._masks


class ManyActions(gym.Env[np.ndarray, int]):
    """
    Ten numbers, and as many actions as wanted, of which each state allows one in ten.

    :param n_actions: number of actions
    """

    def __init__(self, n_actions: int = 2000) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (10,), dtype=np.float32)
        self.action_space = spaces.Discrete(n_actions)  # type: ignore[assignment]
        self._rng = np.random.default_rng(0)
        self._all_masks = self._rng.random((64, n_actions)) < 0.1
        self._all_masks[:, 0] = True
        self._age = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        self._age = 0
        return self._rng.uniform(-1.0, 1.0, 10).astype(np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Reward small actions."""
        self._age += 1
        observation = self._rng.uniform(-1.0, 1.0, 10).astype(np.float32)
        return observation, -float(action) / 2000.0, False, self._age >= 100, {}

    def action_masks(self) -> np.ndarray:
        """Return the mask of the present state."""
        mask: np.ndarray = self._all_masks[self._age % 64]
        return mask


class AllAllowed(gym.Wrapper[Any, Any, Any, Any]):
    """
    Tells masks that allow everything, in place of the environment's own.

    :param env: an environment with a Discrete action space
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        assert isinstance(env.action_space, spaces.Discrete)
        self._mask = np.ones(int(env.action_space.n), dtype=np.int8)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, _ = self.env.reset(**kwargs)
        return observation, {"action_mask": self._mask}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        *result, _ = self.env.step(action)
        return *result, {"action_mask": self._mask}

    def action_masks(self) -> np.ndarray:
        """Return the mask of the present state."""
        return self._mask


def taxi() -> gym.Env[Any, Any]:
    """Make Taxi, with the method through which sb3-contrib reads masks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that a later Gymnasium replaces
        env = gym.make("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3")
    return ActionMasker(env, lambda wrapped: wrapped.unwrapped.action_mask(wrapped.unwrapped.s).astype(bool))  # type: ignore[attr-defined]


CASES: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "identity, 70 actions, 55 forbidden": lambda: FastIdentity(70, 55),
    "Taxi": taxi,
    "2,000 actions": ManyActions,
}


def seconds_of(model: OnPolicyAlgorithm) -> float:
    """
    Train for a few rollouts.

    :param model: the model
    :return: processor seconds, which other programs on the machine disturb less than the clock
    """
    started = time.process_time()
    model.learn(ROLLOUTS * N_STEPS)
    return time.process_time() - started


def measure(make: Callable[[], gym.Env[Any, Any]], rounds: int) -> tuple[list[float], float, float, float]:
    """
    Measure one environment, all sides in turns.

    :param make: makes the environment
    :param rounds: number of turns
    :return: env steps per second of MaskableTRPO, MaskablePPO and TRPO; how many times as fast MaskableTRPO is as MaskablePPO;
        how much longer it takes than TRPO; and the same where all actions are allowed
    """
    settings: dict[str, Any] = {"n_steps": N_STEPS, "seed": 0, "device": "cpu"}
    masked = {**settings, "mask_source": "info" if make is taxi else "auto"}
    sides: list[Callable[[], OnPolicyAlgorithm]] = [
        lambda: MaskableTRPO("MlpPolicy", make(), **masked),
        lambda: MaskablePPO("MlpPolicy", make(), **settings),
        lambda: TRPO("MlpPolicy", make(), **settings),
        lambda: MaskableTRPO("MlpPolicy", AllAllowed(make()), **masked),
        lambda: TRPO("MlpPolicy", AllAllowed(make()), **settings),
    ]
    # new models every time: once they have learned something, the sides would step through different parts of an environment
    times = np.array([[seconds_of(model()) for model in sides] for _ in range(rounds + 1)])[1:]
    speed, longer, overhead = (
        statistics.median((times[:, one] / times[:, other]).tolist()) for one, other in ((1, 0), (0, 2), (3, 4))
    )
    return [ROLLOUTS * N_STEPS / float(part) for part in np.median(times, axis=0)[:3]], speed, longer - 1.0, overhead - 1.0


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The speed of training with action masks.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of all sides")
    rounds = parser.parse_args(arguments).rounds
    th.set_num_threads(1)
    peers = ("MaskableTRPO", "MaskablePPO", "times as fast", "TRPO without masks", "extra time")
    print_head("environment", *peers, "overhead where all is allowed")
    for name, make in CASES.items():
        (ours, peer, without), speed, longer, overhead = measure(make, rounds)
        rates = (f"{ours:,.0f}", f"{peer:,.0f}", f"{speed:.1f}", f"{without:,.0f}")
        print_row(name, *rates, f"{longer:.1%}", f"{overhead:.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
