"""Tiny environments that forbid some of their actions, and refuse them."""

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trpo.distributions.action_masks import MaskLayout
from tests.toy_envs import ACTIONS, VECTOR, RandomEnv

SPACES = ("discrete", "multi_discrete", "multi_binary")
"""The names, in ``ACTIONS``, of the spaces whose actions can be masked."""


class MaskedEnv(RandomEnv):
    """
    An environment with a new random mask in every state.

    :param action_space: its action space
    :param where: where it tells its masks: "env_method", "info" or "observation"
    :param share: share of the values that it allows, besides one of each choice
    :param observation_space: its observation space
    :param kwargs: arguments of :class:`RandomEnv`
    """

    def __init__(
        self,
        action_space: spaces.Space[Any] = ACTIONS["discrete"],
        where: str = "env_method",
        share: float = 0.4,
        observation_space: spaces.Space[Any] = VECTOR,
        **kwargs: Any,
    ) -> None:
        if where == "observation":
            size = MaskLayout.of(action_space).size
            observation_space = spaces.Dict({"obs": VECTOR, "action_mask": spaces.Box(0, 1, (size,), dtype=np.int8)})
        super().__init__(observation_space, action_space, **kwargs)
        self.layout, self.where, self.share = MaskLayout.of(action_space), where, share
        self.rng = np.random.default_rng(0)
        self.refused = 0
        if where == "env_method":
            self.action_masks = lambda: self.mask.copy()
        self._draw_mask()

    def _draw_mask(self) -> None:
        self.mask = self.rng.random(self.layout.size) < self.share
        self.mask[self.layout.starts + self.rng.integers(self.layout.sizes)] = True

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self.where == "info":
            info = {**info, "action_mask": self.mask.astype(np.int8)}
        if self.where == "observation":
            obs = {**obs, "action_mask": self.mask.astype(np.int8)}
        return obs, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self._draw_mask()
        return self._with_mask(*super().reset(seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if len(self.layout.forbidden(self.mask[None], np.asarray(action)[None])):
            raise AssertionError(f"the mask {self.mask} forbids the action {action}")
        obs, reward, terminated, truncated, info = super().step(action)
        self._draw_mask()
        return *(pair := self._with_mask(obs, info))[:1], reward, terminated, truncated, pair[1]
