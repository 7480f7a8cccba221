"""Tiny environments for the tests."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

VECTOR = spaces.Box(-1.0, 1.0, (3,), dtype=np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 1), dtype=np.uint8)
ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1.0, 1.0, (2,), dtype=np.float32),
    "box_matrix": spaces.Box(-1.0, 1.0, (2, 3), dtype=np.float32),
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": VECTOR,
    "float64": spaces.Box(-1.0, 1.0, (3,), dtype=np.float64),
    "matrix": spaces.Box(-1.0, 1.0, (2, 3), dtype=np.float32),
    "uint8": spaces.Box(0, 255, (4,), dtype=np.uint8),
    "image": IMAGE,
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "dict": spaces.Dict({"vector": VECTOR, "image": IMAGE, "discrete": spaces.Discrete(3)}),
}


class RandomEnv(gym.Env[Any, Any]):
    """
    Random observations; the reward depends on the action, so there is always a signal.

    :param observation_space: its observation space
    :param action_space: its action space
    :param length: steps of an episode
    :param truncate: whether episodes end by a time limit rather than by themselves
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any] = VECTOR,
        action_space: spaces.Space[Any] = ACTIONS["box"],
        length: int = 8,
        truncate: bool = False,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.length = length
        self.truncate = truncate
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        ended = self.steps >= self.length
        reward = float(np.mean(action)) + 0.1 * self.steps
        return self.observation_space.sample(), reward, ended and not self.truncate, ended and self.truncate, {}


class FaultyEnv(RandomEnv):
    """
    Goes wrong once, at one step counted from its creation.

    :param at: the step
    :param reward: reward of that step
    :param observation: fill value of that step's observation
    :param error: exception that the step raises
    """

    def __init__(
        self,
        at: int,
        reward: float | None = None,
        observation: float | None = None,
        error: type[BaseException] | None = None,
    ) -> None:
        super().__init__()
        self.at = at
        self.reward = reward
        self.observation = observation
        self.error = error
        self.calls = 0
        self.actions: list[Any] = []

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        obs, reward, terminated, truncated, info = super().step(action)
        self.calls += 1
        if self.calls - 1 == self.at:
            if self.error is not None:
                raise self.error
            reward = reward if self.reward is None else self.reward
            obs = obs if self.observation is None else np.full_like(obs, self.observation)
        return obs, reward, terminated, truncated, info


class ConstantEnv(RandomEnv):
    """One-step episodes with the same observation and the same reward: nothing to learn."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.full(3, 0.3, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.full(3, 0.3, dtype=np.float32), 1.0, True, False, {}
