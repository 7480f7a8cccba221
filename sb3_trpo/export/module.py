"""A policy as one module from raw observations to the actions that the environment receives."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import nn

from sb3_trpo.batch.states import States
from sb3_trpo.checks import described
from sb3_trpo.distributions.masked import MaskedBernoulliDistribution
from sb3_trpo.export.further_inputs import next_name
from sb3_trpo.export.inputs import NamedInput
from sb3_trpo.export.stepping import step_of, stepping
from sb3_trpo.policies.action_graphs import detach_action_dist
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.rollout.collector import RolloutCollector

OUTPUTS = ("action", "value", "log_prob", "probabilities")
"""Outputs that can be chosen; see :meth:`ExportedPolicy.forward`."""

_PREDICTS = {"predict": BasePolicy, "_predict": ActorCriticPolicy, "obs_to_tensor": BasePolicy, "unscale_action": BasePolicy}
"""Methods of a policy that ``predict`` runs outside of its networks and distribution, with SB3's class that defines each."""

_OWN_PREDICTS = ("sb3_trpo.algorithms.", "sb3_trpo.policies.")
"""Where this package defines such methods, which take masks and memory besides; the exported policy computes what they do."""


class ExportedPolicy(nn.Module):
    """
    Computes what ``predict(..., deterministic=True)`` does, from the observations of the environment, the action masks and the
    memory before the step.

    It has a copy of the policy on the CPU, in evaluation mode.

    :param model: the model
    :param inputs: the inputs, in order
    :param outputs: names of the chosen outputs, in order; the memory after the step follows
    :raises TypeError: if the policy's ``predict`` runs custom code outside of its networks and distribution
    """

    def __init__(self, model: RolloutCollector, inputs: Sequence[NamedInput], outputs: Sequence[str]) -> None:
        super().__init__()
        check_predicts_as_sb3(model)
        self.policy = _copied(model.policy)
        self.interface: PolicyInterface = stepping(model.interface_class, self.policy)
        self.inputs = tuple(inputs)
        self.chosen = tuple(outputs)
        self.outputs = (*self.chosen, *(next_name(each.name) for each in inputs if each.field == "memory"))
        self.steps = nn.ModuleList(nn.Sequential(*each.steps) for each in inputs)
        self.low: th.Tensor
        self.high: th.Tensor
        space = model.action_space
        if isinstance(space, spaces.Box):
            dtype = np.result_type(np.float32, space.low.dtype)  # of what NumPy computes from actions and bounds
            self.register_buffer("low", th.as_tensor(space.low.astype(dtype)))
            self.register_buffer("high", th.as_tensor(space.high.astype(dtype)))

    def forward(self, *inputs: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        Compute the outputs: the actions as ``predict`` returns them, shape (B, ...); the values, shape (B,); the logarithms of
        the probabilities or densities of these actions before they are clipped, shape (B,), nats; the probabilities of all
        choices, for a MultiDiscrete one after the other, for a MultiBinary those of a 1, shape (B, n).

        :param inputs: each of shape (B, ...)
        :return: the chosen outputs, then the memory after the step, each part of shape (B, n_layers, hidden)
        """
        states = self.states(inputs)
        distribution, values, memory = step_of(self.interface, states, with_values="value" in self.chosen)
        actions = distribution.get_actions(deterministic=True)
        compute: dict[str, Callable[[], Any]] = {
            "action": lambda: self._for_environment(actions),
            "value": lambda: None if values is None else values.flatten(),
            "log_prob": lambda: distribution.log_prob(actions),
            "probabilities": lambda: probabilities_of(distribution),
        }
        return (*(compute[name]() for name in self.chosen), *memory)

    def states(self, inputs: Sequence[th.Tensor]) -> States:
        """
        Prepare the inputs and put them together.

        :param inputs: in the order of the module's inputs
        :return: the states that the policy reads
        """
        parts: dict[str, Any] = {field.name: {} for field in fields(States)}
        for each, steps, values in zip(self.inputs, self.steps, inputs, strict=True):
            parts[each.field][each.key] = steps(values)
        memory = tuple(parts.pop("memory").values()) or None
        return States(**{name: part.get(None, part) for name, part in parts.items() if part}, memory=memory)

    def _for_environment(self, actions: th.Tensor) -> th.Tensor:
        """Give actions their shape, and keep them within the bounds, as ``predict`` does."""
        space = self.policy.action_space
        actions = actions.reshape(-1, *(space.shape or ()))
        if not isinstance(space, spaces.Box):
            return actions
        if self.policy.squash_output:
            return self.low + (0.5 * (actions + 1.0)).to(self.low.dtype) * (self.high - self.low)
        return th.minimum(th.maximum(actions.to(self.low.dtype), self.low), self.high)


def probabilities_of(distribution: Distribution) -> th.Tensor:
    """
    Read the probabilities off a distribution over choices.

    :param distribution: of a Discrete, MultiDiscrete or MultiBinary space, in B states
    :return: the probabilities of all choices, shape (B, n); for a MultiBinary those of a 1
    """
    if isinstance(distribution, MaskedBernoulliDistribution):
        return distribution.logits.sigmoid()
    parts: Any = distribution.distribution
    probabilities: th.Tensor = th.cat([part.probs for part in parts], dim=1) if isinstance(parts, list) else parts.probs
    return probabilities


def _copied(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    detach_action_dist(policy)
    copied: ActorCriticPolicy = copy.deepcopy(policy).to("cpu")
    copied.set_training_mode(False)
    return copied


def check_outputs(outputs: Sequence[str], policy: ActorCriticPolicy) -> None:
    """
    Check the names of the outputs.

    :param outputs: the names
    :param policy: the policy
    :raises ValueError: for an unknown name, for two of the same, and for one that the policy does not have
    """
    names = ", ".join(map(repr, OUTPUTS))
    if isinstance(outputs, str) or not isinstance(outputs, Sequence) or not outputs:
        raise ValueError(f"`outputs` must be a list or tuple of at least one of {names}, not {described(outputs)}")
    for name in outputs:
        if name not in OUTPUTS or list(outputs).count(name) > 1:
            raise ValueError(f"`outputs` must be different names of {names}, not {described(outputs)}")
    if "probabilities" in outputs and isinstance(policy.action_space, spaces.Box):
        raise ValueError(f"`outputs` cannot have 'probabilities' for {policy.action_space}: its actions have densities")
    if "log_prob" in outputs and policy.squash_output:
        raise ValueError(
            "`outputs` cannot have 'log_prob' for squashed actions: SB3 computes their densities from rounded ones, which are "
            "wrong where tanh saturates"
        )


def check_predicts_as_sb3(model: Any) -> None:
    """
    Check that ``predict`` runs no custom code outside of the policy's networks and distribution.

    :param model: the model
    :raises TypeError: naming the method that does
    """
    policy = model.policy
    if not isinstance(policy, ActorCriticPolicy):
        raise TypeError(f"only a policy that is an ActorCriticPolicy can be exported, not {described(policy)}")
    for owner, defining, name in [
        (model, BaseAlgorithm, "predict"),
        *((policy, defining, name) for name, defining in _PREDICTS.items()),
    ]:
        method = getattr(type(owner), name)
        known = method is getattr(defining, name) or method.__module__.startswith(_OWN_PREDICTS)
        if name in vars(owner) or not known:
            raise TypeError(
                f"{type(owner).__name__} has a custom `{name}`, and an exported policy would not run it: put the computation "
                "into the policy's networks or its `get_distribution`"
            )
