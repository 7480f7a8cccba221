"""The inputs of an exported policy besides the observations: action masks, memory, and where episodes begin."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import nn

from sb3_trpo.distributions.action_masks import MaskLayout
from sb3_trpo.export.inputs import NamedInput, Preparation
from sb3_trpo.policies.recurrent import MlpLstmPolicy
from sb3_trpo.policies.sequences import n_memory_parts

ACTION_MASKS = "action_masks"
"""Name of the input with the action masks."""

EPISODE_START = "episode_start"
"""Name of the input that tells where an episode begins, and the memory with it."""

_PARTS = ("h", "c")
_CRITIC = "critic_"
_SHARE_OF_STARTS = 0.1


class Booleans(spaces.Space[np.ndarray]):
    """
    Arrays of booleans.

    :param shape: their shape
    :param share: share of those that are True
    """

    def __init__(self, shape: tuple[int, ...], share: float) -> None:
        super().__init__(shape, np.bool_)
        self.share = share

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        """
        Draw an array.

        :param mask: not used
        :param probability: not used
        :return: the array
        """
        assert self.shape is not None
        return np.asarray(self.np_random.random(self.shape) < self.share)


class ActionMasks(Booleans):
    """
    Masks that allow at least one value of each choice.

    :param layout: their layout
    """

    def __init__(self, layout: MaskLayout) -> None:
        super().__init__((layout.size,), share=0.4)
        self.layout = layout

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        """
        Draw a mask.

        :param mask: not used
        :param probability: not used
        :return: the mask, shape (n,)
        """
        drawn = super().sample()
        drawn[self.layout.starts + self.np_random.integers(self.layout.sizes)] = True
        return drawn


def inputs_of(model: OnPolicyAlgorithm, preparation: Preparation, outputs: Sequence[str]) -> tuple[NamedInput, ...]:
    """
    Make all inputs of an exported policy: those that the model's ``predict`` takes.

    :param model: the model
    :param preparation: the way of its observations to its policy
    :param outputs: names of the outputs; the memory of the critic is an input only if "value" is one of them
    :return: the observations, the masks if ``predict`` takes any, and the memory of a policy that has one
    """
    made = list(preparation.inputs(model.observation_space))
    if takes_masks(model):
        space = ActionMasks(MaskLayout.of(model.action_space))
        made.append(NamedInput(ACTION_MASKS, "action_masks", None, space, ()))
    if isinstance(model.policy, MlpLstmPolicy):
        made += _memory_inputs(model.policy.lstm_actor, "")
        if model.policy.lstm_critic is not None and "value" in outputs:
            made += _memory_inputs(model.policy.lstm_critic, _CRITIC)
        made.append(NamedInput(EPISODE_START, "episode_starts", None, Booleans((), _SHARE_OF_STARTS), ()))
    return tuple(made)


def takes_masks(model: OnPolicyAlgorithm) -> bool:
    """
    Tell whether a model's ``predict`` takes action masks.

    :param model: the model
    :return: whether it does
    """
    return ACTION_MASKS in inspect.signature(model.predict).parameters


def next_name(name: str) -> str:
    """
    Name the output that is the value of an input of the memory in the next step.

    :param name: name of the input
    :return: name of the output
    """
    return f"next_{name}"


def is_of_critic(given: NamedInput) -> bool:
    """
    Tell whether an input belongs to the critic's memory.

    :param given: the input
    :return: whether it does
    """
    return given.field == "memory" and given.name.startswith(_CRITIC)


def _memory_inputs(rnn: nn.RNNBase, prefix: str) -> list[NamedInput]:
    """Make the inputs for the state of a recurrent layer, each of shape (B, n_layers, hidden)."""
    bounds = {"h": 1.0, "c": np.inf}
    shape = (rnn.num_layers, rnn.hidden_size)
    names = _PARTS[: n_memory_parts(rnn)]
    spaces_of = {name: spaces.Box(-bounds[name], bounds[name], shape, dtype=np.float32) for name in names}
    return [NamedInput(f"{prefix}{name}", "memory", f"{prefix}{name}", spaces_of[name], ()) for name in names]
