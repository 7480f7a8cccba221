"""Normalises the targets of the critic, and its output with them, so that the scale of rewards does not matter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch as th
from torch import nn

from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.originals import altered_method
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.workers import ALONE, Workers
from sb3_trpo.update.moments import RunningMoments

_LEAST_SHARE = 0.1
"""Smallest weight of the last rollout in the moments: returns grow as the policy learns."""

_ROUNDING = 8.0 * th.finfo(th.float32).eps
"""Deviation relative to the mean below which targets are taken for constant."""


class TargetScale(NamedTuple):
    """
    The unit of the targets.

    :param mean: their running mean
    :param std: their running standard deviation, above 0
    """

    mean: float = 0.0
    std: float = 1.0

    def normalized(self, targets: th.Tensor) -> th.Tensor:
        """
        Subtract the mean and divide by the standard deviation.

        :param targets: any shape
        :return: targets of the same shape and dtype
        """
        if self == TargetScale():
            return targets
        return ((targets.double() - self.mean) / self.std).to(targets.dtype)


def target_scale(moments: RunningMoments) -> TargetScale:
    """
    Read the unit of the targets.

    :param moments: moments of the targets, one column
    :return: mean and standard deviation; targets that are all equal have the unit of their size
    """
    mean, std = moments.mean.item(), moments.std.item()
    if not std > _ROUNDING * abs(mean):
        std = abs(mean) or 1.0
    return TargetScale(mean, std)


def observe_targets(moments: RunningMoments, returns: th.Tensor, workers: Workers = ALONE) -> TargetScale:
    """
    Merge the targets of a rollout.

    :param moments: moments of the targets, which are updated
    :param returns: targets of the rollout, shape (B,)
    :param workers: the processes whose targets are pooled
    :return: the unit of the targets from now on
    """
    moments.update(returns, _LEAST_SHARE, workers)
    return target_scale(moments)


def output_layer(interface: PolicyInterface) -> nn.Linear | Reason:
    """
    Find the layer whose output is the value.

    :param interface: interface to the policy
    :return: the layer; otherwise the reason why its output cannot be rescaled
    """
    layer = getattr(interface.policy, "value_net", None)
    if not interface.has_separable_values():
        return Reason("the values are computed in a custom way")
    if type(layer) is not nn.Linear or layer.bias is None:
        return Reason(f"the critic ends with a {type(layer).__name__}")
    if layer._forward_hooks or layer._forward_pre_hooks or altered_method([layer]) is not None:
        return Reason("the critic's last layer is altered")
    if not (layer.weight.requires_grad and layer.bias.requires_grad):
        return Reason("the critic's last layer is frozen")
    return layer


@contextmanager
def normalized_output(layer: nn.Linear, scale: TargetScale) -> Iterator[None]:
    """
    Let a layer give normalised values within the context; before and after it, no value changes.

    Source: van Hasselt et al. 2016, Learning values across many orders of magnitude (PopArt), equation 4.

    :param layer: the critic's last layer, y = W h + b
    :param scale: the unit of the targets
    """
    weight, bias = layer.weight, layer.bias
    with th.no_grad():
        weight.copy_(weight.double() / scale.std)
        bias.copy_((bias.double() - scale.mean) / scale.std)
    try:
        yield
    finally:
        with th.no_grad():
            weight.copy_(weight.double() * scale.std)
            bias.copy_(bias.double() * scale.std + scale.mean)
