"""The policies behind the aliases of the masked algorithms: those of the others, which take action masks."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_trpo.distributions.action_masks import MaskLayout
from sb3_trpo.distributions.masked import CONTRIB, masked
from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy
from sb3_trpo.policies.interface import own_distribution
from sb3_trpo.policies.loading import SafelyLoaded

Masks = np.ndarray | th.Tensor | list[Any] | None
"""Action masks, shape (n,) for one observation or (B, n) for B of them, of 0 and 1 or booleans; None: all are possible."""


class _TakesMasks(SafelyLoaded):
    """
    A policy with the signatures of sb3-contrib's maskable ones.

    :param args: arguments of the policy
    :param kwargs: keyword arguments of the policy
    """

    def forward(
        self, obs: th.Tensor, deterministic: bool = False, action_masks: Masks = None
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        Run actor and critic.

        :param obs: B observations
        :param deterministic: whether to take the most probable action
        :param action_masks: the actions that are possible, shape (B, n)
        :return: actions, values and log-probabilities
        """
        with self._restricted(action_masks):
            return super().forward(obs, deterministic)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: th.Tensor, action_masks: Masks = None
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """
        Evaluate actions.

        :param obs: B observations
        :param actions: the actions, shape (B, ...)
        :param action_masks: the actions that are possible, shape (B, n)
        :return: values, log-probabilities of the actions, and entropies
        """
        with self._restricted(action_masks):
            return super().evaluate_actions(obs, actions)

    def get_distribution(self, obs: PyTorchObs, action_masks: Masks = None) -> Distribution:
        """
        Compute the action distribution.

        :param obs: B observations
        :param action_masks: the actions that are possible, shape (B, n)
        :return: the distribution
        """
        with self._restricted(action_masks):
            return super().get_distribution(obs)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Masks = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions.

        :param observation: one observation, or several
        :param state: not used
        :param episode_start: not used
        :param deterministic: whether to take the most probable action
        :param action_masks: the actions that are possible, shape (n,) or (B, n)
        :return: the actions, and ``state``
        """
        with self._restricted(action_masks):
            return super().predict(observation, state, episode_start, deterministic)

    def _restricted(self, action_masks: Masks) -> AbstractContextManager[None]:
        return _restricted(self, action_masks)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves it out, so a policy saved by its `save` method would be loaded with the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


@contextmanager
def _restricted(policy: ActorCriticPolicy, action_masks: Masks) -> Iterator[None]:
    """Give no probability to actions that masks forbid, within the context."""
    before = policy.action_dist
    if action_masks is not None:
        policy.action_dist = masked(before, read_masks(policy, action_masks))
    try:
        yield
    finally:
        policy.action_dist = before


class MaskableMlpPolicy(_TakesMasks):
    """
    SB3's ``ActorCriticPolicy`` that takes action masks.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """


class MaskableCnnPolicy(_TakesMasks, CnnPolicy):
    """
    :class:`~sb3_trpo.policies.CnnPolicy` that takes action masks.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """


class MaskableMultiInputPolicy(_TakesMasks, MultiInputPolicy):
    """
    :class:`~sb3_trpo.policies.MultiInputPolicy` that takes action masks.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """


def read_masks(policy: Any, masks: Masks) -> th.Tensor:
    """
    Read the masks that a user gives with some observations.

    :param policy: the policy
    :param masks: shape (n,), or (B, n)
    :return: shape (B, n), bool, on the policy's device
    :raises ValueError: if one has a wrong length, other values than 0 and 1, or allows nothing
    """
    layout = MaskLayout.of(policy.action_space)
    given: Any = masks.cpu().numpy() if isinstance(masks, th.Tensor) else masks
    several = isinstance(given, Sequence | np.ndarray) and any(np.ndim(part) > 0 for part in given)
    rows = given if several else [given]
    return th.from_numpy(layout.read(rows, len(rows), lambda i: f"`action_masks` of observation {i}")).to(policy.device)


def predict_with_masks(
    policy: Any, masks: Masks, *args: Any, **kwargs: Any
) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
    """
    Call a policy's ``predict`` with action masks, whether its signature has them or not.

    :param policy: the policy
    :param masks: shape (n,), or (B, n)
    :param args: arguments of ``predict``
    :param kwargs: keyword arguments of ``predict``
    :return: actions and states
    :raises ValueError: if a mask has a wrong length, other values than 0 and 1, or allows nothing
    """
    with own_distribution(policy, read_masks(policy, masks)) as lent:
        actions, states = lent.predict(*args, **kwargs)
    return actions, states


def is_contrib_maskable(policy_class: Any) -> bool:
    """
    Tell whether a class is one of sb3-contrib's maskable policies, or derived from one.

    :param policy_class: any class, or anything else
    :return: whether it is
    """
    module = CONTRIB.replace("distributions", "policies")
    bases = policy_class.__mro__ if isinstance(policy_class, type) else ()
    return any(base.__module__ == module and base.__name__ == "MaskableActorCriticPolicy" for base in bases)
