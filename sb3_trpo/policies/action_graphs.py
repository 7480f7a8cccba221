"""Frees a policy's action distribution from the autograd graphs that SB3 leaves in it, so that the policy can be copied."""

from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.distributions import Normal


def detach_action_dist(policy: ActorCriticPolicy) -> None:
    """
    Detach the tensors that the action distribution keeps between two calls of the policy: gSDE's noise, and the last states.

    A tensor with a graph cannot be copied by ``copy.deepcopy``. No random number is drawn, and no value changes.

    :param policy: the policy
    """
    kept = vars(policy.action_dist) if hasattr(policy.action_dist, "__dict__") else {}
    for name, value in kept.items():
        if isinstance(value, th.Tensor) and not value.is_leaf:
            kept[name] = value.detach()
        elif type(value) is Normal and not (value.loc.is_leaf and value.scale.is_leaf):
            kept[name] = Normal(value.loc.detach(), value.scale.detach(), validate_args=False)
        elif name == "distribution" and _has_graph(value):
            kept[name] = None  # that of the last states; the next call of the policy makes another


def _has_graph(distribution: Any) -> bool:
    """Tell whether a torch distribution, or one of several, holds a tensor with a graph."""
    parts = distribution if isinstance(distribution, list) else [distribution]
    tensors = [value for part in parts if hasattr(part, "__dict__") for value in vars(part).values()]
    return any(isinstance(value, th.Tensor) and not value.is_leaf for value in tensors)
