"""Acts with the torch policy, and says where an action distribution that torch refuses is not finite."""

import math

import torch as th
from gymnasium import spaces

from sb3_trpo.batch.states import States
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.distributions.validation import unchecked_distributions
from sb3_trpo.policies.interface import Acted, PolicyInterface
from sb3_trpo.rollout.finite_checks import check_finite


def torch_act(interface: PolicyInterface, states: States, step: int) -> Acted:
    """
    Draw an action in every state.

    Torch's own check stays on meanwhile: NaN would abort the sampling of discrete actions, on a GPU with the whole process.

    :param interface: interface to the policy
    :param states: the present states of the environments
    :param step: index of the step in the rollout, for the message
    :return: actions, values and log-probabilities, without a graph
    :raises ValueError: if the action distribution of an environment is not finite, naming the environment
    """
    try:
        return interface.act(states)
    except (ValueError, RuntimeError):
        _check_distribution(interface, states, step)
        raise


def _check_distribution(interface: PolicyInterface, states: States, step: int) -> None:
    """Refuse NaN among the parameters of the action distribution; infinite ones can be a mask."""
    space = interface.policy.action_space
    shape = (len(states), *(space.shape or ()))
    dtype = th.long if isinstance(space, spaces.Discrete) else th.float32
    actions = th.zeros(shape, dtype=dtype, device=interface.policy.device)  # any will do
    with th.no_grad(), unchecked_distributions():
        distribution = interface.distribution(states)
        parts = distribution_family(distribution).parameters(distribution, actions)
    outputs = th.cat([part.reshape(len(states), -1) for part in parts], dim=1)
    check_finite("action distribution", outputs.nan_to_num(nan=math.nan).cpu().numpy(), step)
