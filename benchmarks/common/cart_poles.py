"""CartPole-v1 many times in one array, as a ``VecEnv`` that costs little: what is left is the algorithms' own work."""

import time
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

_LIMIT = np.array([2.4, np.inf, 12 * 2 * np.pi / 360, np.inf], dtype=np.float32)
_BOUNDS = np.array([4.8, np.inf, 2 * 12 * 2 * np.pi / 360, np.inf], dtype=np.float32)


class CartPoles(VecEnv):
    """
    The equations of Gymnasium's CartPole-v1 in float32, for many carts at once.

    :param n_envs: number of carts
    :param max_steps: steps after which a time limit ends an episode
    """

    def __init__(self, n_envs: int, max_steps: int = 500) -> None:
        super().__init__(n_envs, spaces.Box(-_BOUNDS, _BOUNDS, dtype=np.float32), spaces.Discrete(2))
        self._max_steps = max_steps
        self._rng = np.random.default_rng(0)
        self._states = np.zeros((n_envs, 4), dtype=np.float32)
        self._ages = np.zeros(n_envs, dtype=np.int64)
        self._actions = np.zeros(n_envs, dtype=np.int64)
        self._started = time.time()

    def _first_states(self, n: int) -> np.ndarray:
        return self._rng.uniform(-0.05, 0.05, (n, 4)).astype(np.float32)

    def reset(self) -> np.ndarray:
        """Begin new episodes."""
        if self._seeds[0] is not None:
            self._rng = np.random.default_rng(self._seeds[0])
            self._reset_seeds()
        self._states, self._ages[:] = self._first_states(self.num_envs), 0
        return self._states.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Move all carts."""
        x, x_dot, theta, theta_dot = self._states.T
        force = np.where(self._actions == 1, np.float32(10.0), np.float32(-10.0))
        cos, sin = np.cos(theta), np.sin(theta)
        push = (force + np.float32(0.05) * theta_dot**2 * sin) / np.float32(1.1)
        turn = (np.float32(9.8) * sin - cos * push) / (np.float32(0.5) * (np.float32(4 / 3) - np.float32(0.1 / 1.1) * cos**2))
        move = push - np.float32(0.05 / 1.1) * turn * cos
        tau = np.float32(0.02)
        self._states = np.stack([x + tau * x_dot, x_dot + tau * move, theta + tau * theta_dot, theta_dot + tau * turn], axis=1)
        self._ages += 1
        fell: np.ndarray = np.any(np.abs(self._states) > _LIMIT, axis=1)
        late = self._ages >= self._max_steps
        dones = fell | late
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones)
        if len(ended):
            seconds = round(time.time() - self._started, 6)
            for i in ended.tolist():
                steps = int(self._ages[i])
                infos[i] = {
                    "terminal_observation": self._states[i].copy(),
                    "TimeLimit.truncated": bool(late[i] and not fell[i]),
                    "episode": {"r": float(steps), "l": steps, "t": seconds},
                }
            self._states[ended], self._ages[ended] = self._first_states(len(ended)), 0
        return self._states.copy(), np.ones(self.num_envs, dtype=np.float32), dones, infos

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
