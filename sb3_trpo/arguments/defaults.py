"""The defaults of sb3-contrib's TRPO, and those of ours that depend on the environment."""

import math
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.arguments.policies import STANDARD

SB3_CONTRIB_DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "n_steps": 2048,
    "batch_size": 128,
    "gamma": 0.99,
    "cg_max_steps": 15,
    "cg_damping": 0.1,
    "line_search_shrinking_factor": 0.8,
    "line_search_max_iter": 10,
    "n_critic_updates": 10,
    "gae_lambda": 0.95,
    "target_kl": 0.01,
    "policy_kwargs": {"log_std_init": 0.0},
    "normalize_observations": False,
    "normalize_returns": False,
    "scale_target_kl": False,
    "fisher_sample_fraction": 1.0,
}
"""
The arguments with which ``TRPO(policy, env, **SB3_CONTRIB_DEFAULTS)`` uses sb3-contrib's defaults. Its KL is averaged over the
d action dimensions, ours is summed: for the same trust region, multiply ``target_kl`` and ``cg_damping`` by d.
"""

_ROLLOUT = 1024
"""Least number of transitions of a rollout by default."""

_BATCH = 128
"""Default mini-batch of the critic, which the default rollout is a multiple of."""

_LEAST_STEPS = 64
"""Smallest number of steps of each environment in a rollout by default: shorter ones estimate advantages from the critic."""

_IMAGE_FRACTION = 0.1
"""Share of the transitions in the Fisher matrix of images by default, as in appendix C.1 of the paper."""

_IMAGE_STATES = 100
"""Least number of transitions in it by default: with a few, hardly any step keeps the bound."""

_KL = 0.005
"""Default bound on the KL for each action dimension, nats."""

_LEAST_KL, _LARGEST_KL = 0.01, 0.03
"""Range of the default bound: between these it grows with the number of action dimensions."""

_DAMPING = 0.15
"""Default damping of one action dimension: the Fisher matrix of a layer adds up the dimensions."""


def default_n_steps(n_envs: int) -> int:
    """
    Compute the rollout length that makes 1,024 transitions, or the next multiple of the mini-batch.

    :param n_envs: number of environments
    :return: steps of each environment
    """
    unit = _BATCH // math.gcd(_BATCH, n_envs)
    return unit * math.ceil(max(_LEAST_STEPS, _ROLLOUT / n_envs) / unit)


def action_dimensions(space: spaces.Space[Any]) -> int:
    """
    Count the independent parts of an action.

    :param space: space of the actions
    :return: 1 for Discrete, the number of components for Box, MultiDiscrete and MultiBinary
    """
    return max(1, math.prod(space.shape or ()))


def default_target_kl(space: spaces.Space[Any]) -> float:
    """
    Compute the default bound on the KL, which sums over the action dimensions.

    :param space: space of the actions
    :return: 0.005 for each action dimension, at least 0.01 and at most 0.03, nats
    """
    return min(_LARGEST_KL, max(_LEAST_KL, round(_KL * action_dimensions(space), 4)))


def default_cg_damping(space: spaces.Space[Any]) -> float:
    """
    Compute the default damping, in proportion to the number of terms of the KL.

    :param space: space of the actions
    :return: 0.15 for each action dimension
    """
    return round(_DAMPING * action_dimensions(space), 4)


def default_log_std(space: spaces.Space[Any]) -> float:
    """
    Compute the logarithm of the standard deviation with which a Gaussian begins by default.

    :param space: space of the actions
    :return: -log(d) / 2, so that the noise of all d action dimensions has an expected squared norm of 1
    """
    return -0.5 * math.log(action_dimensions(space))


def default_fisher_fraction(space: spaces.Space[Any], n_transitions: int) -> float:
    """
    Choose the share of the transitions that the Fisher-vector products use: with images they take most of an update's time.

    :param space: space of the observations
    :param n_transitions: number of transitions of a rollout
    :return: for images, alone or in a Dict, a tenth, or what makes 100 transitions of a smaller rollout; otherwise 1
    """
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    if not any(isinstance(part, spaces.Box) and len(part.shape) == 3 for part in parts):
        return 1.0
    return min(1.0, max(_IMAGE_FRACTION, _IMAGE_STATES / n_transitions))


def set_default_std(policy: ActorCriticPolicy, policy_kwargs: dict[str, Any]) -> None:
    """
    Let a new standard policy with a Gaussian begin with the default standard deviation, unless the user chose one.

    :param policy: the policy, as SB3 makes it
    :param policy_kwargs: the user's arguments of the policy
    """
    gaussian = type(policy.action_dist) is DiagGaussianDistribution  # gSDE's deviation has another meaning
    if type(policy) in STANDARD and gaussian and "log_std_init" not in policy_kwargs:
        policy.log_std_init = default_log_std(policy.action_space)
        nn.init.constant_(policy.log_std, policy.log_std_init)
