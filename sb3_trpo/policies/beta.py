"""Policies whose actions are Beta distributed between the bounds of the action space."""

from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import Schedule

from sb3_trpo.distributions.beta import BetaDistribution
from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy, SeparateExtractors


class BetaMlpPolicy(SeparateExtractors):
    """
    SB3's ``ActorCriticPolicy`` with a Beta distribution for each action dimension, which has no mass beyond the bounds.

    :param observation_space: the observation space
    :param action_space: a ``Box`` with finite bounds
    :param args: further arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    :raises ValueError: for another action space, or for gSDE
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *args: Any, **kwargs: Any
    ) -> None:
        name = type(self).__name__
        if not (isinstance(action_space, spaces.Box) and _has_bounds(action_space)):
            raise ValueError(f"{name} needs a Box with finite bounds and low < high as `action_space`, not {action_space}")
        super().__init__(observation_space, action_space, *args, **kwargs)
        if self.use_sde:
            raise ValueError(f"`use_sde` must be False for {name}: gSDE explores with a Gaussian")
        self._squash_output = True  # actions are in [-1, 1], and SB3 scales them to the bounds

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        del self.log_std
        self.action_dist = BetaDistribution(get_action_dim(self.action_space))
        self.action_net = self.action_dist.proba_distribution_net(self.mlp_extractor.latent_dim_pi)
        if self.ortho_init:
            self.action_net.apply(partial(self.init_weights, gain=0.01))  # as SB3 for the Gaussian's mean
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        assert isinstance(self.action_dist, BetaDistribution)
        return self.action_dist.proba_distribution(self.action_net(latent_pi))


def _has_bounds(space: spaces.Box) -> bool:
    return space.is_bounded() and bool(np.all(space.low < space.high))


class BetaCnnPolicy(BetaMlpPolicy, CnnPolicy):
    """
    :class:`CnnPolicy` with a Beta distribution for each action dimension.

    :param args: arguments of :class:`CnnPolicy`
    :param kwargs: keyword arguments of :class:`CnnPolicy`
    """


class BetaMultiInputPolicy(BetaMlpPolicy, MultiInputPolicy):
    """
    :class:`MultiInputPolicy` with a Beta distribution for each action dimension.

    :param args: arguments of :class:`MultiInputPolicy`
    :param kwargs: keyword arguments of :class:`MultiInputPolicy`
    """
