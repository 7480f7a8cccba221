"""The defaults of sb3-contrib's TRPO, and those of ours that depend on the environment."""

from typing import Any

from gymnasium import spaces

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
}
"""
The arguments with which ``TRPO(policy, env, **SB3_CONTRIB_DEFAULTS)`` uses sb3-contrib's defaults. Its KL is averaged over the
d action dimensions, ours is summed: for the same trust region, multiply ``target_kl`` and ``cg_damping`` by d.
"""

_ROLLOUT = 1024
"""Transitions of a rollout by default."""

_LEAST_STEPS = 64
"""Smallest number of steps of each environment in a rollout by default: shorter ones estimate advantages from the critic."""

_LOG_STD = -0.5
"""Logarithm of a Gaussian's initial standard deviation by default."""


def default_n_steps(n_envs: int) -> int:
    """
    Compute the rollout length that makes about a thousand transitions.

    :param n_envs: number of environments
    :return: steps of each environment
    """
    return max(_LEAST_STEPS, _ROLLOUT // n_envs)


def default_policy_kwargs(policy_kwargs: dict[str, Any], action_space: spaces.Space[Any], use_sde: bool) -> dict[str, Any]:
    """
    Add the initial standard deviation to the arguments of a Gaussian policy, unless they have one.

    :param policy_kwargs: the user's arguments
    :param action_space: the action space
    :param use_sde: whether gSDE is used, whose deviation has another meaning
    :return: the arguments
    """
    if use_sde or not isinstance(action_space, spaces.Box):
        return policy_kwargs
    return {"log_std_init": _LOG_STD, **policy_kwargs}
