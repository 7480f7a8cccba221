"""
Finds the parameters that the action distribution depends on, refuses one that depends on chance, and warns if the critic's fit
changes it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch as th

from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.batch.batch import Batch
from sb3_trpo.distributions.family import Parameters
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.distributions.validation import unchecked_distributions
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.workers import ALONE, Workers

_FEW = 2
"""Number of states that suffice for a plain policy."""

_WATCHED_STATES = 16
"""Number of states at which the distribution is compared; a change that shows at none of them is unlikely."""

_ROUNDING = 1e-4
"""Largest difference of float32 outputs, absolute and relative, that is taken for rounding."""


def reached_parameters(
    interface: PolicyInterface, plain: PlainPolicy | Reason, batch: Batch, chunk_size: int, workers: Workers = ALONE
) -> list[th.nn.Parameter]:
    """
    Ask autograd which trainable parameters the action distribution depends on.

    Names do not matter: a ``value_encoder`` that feeds the actor is found, a frozen parameter is not. For a plain policy two
    states suffice. Any other may route states through different layers, so all states are checked.

    :param interface: interface to the policy, in evaluation mode
    :param plain: the same policy as a plain one, or the reason why it is not plain
    :param batch: the whole rollout
    :param chunk_size: largest number of states in one pass
    :param workers: the processes whose states are pooled
    :return: the actor's parameters, in the policy's order
    """
    candidates = [parameter for parameter in interface.policy.parameters() if parameter.requires_grad]
    chunks = batch.chunks(chunk_size) if isinstance(plain, Reason) else iter([batch.take(slice(0, _FEW))])
    reached: set[th.nn.Parameter] = set()
    for chunk in chunks:
        reached |= _reached(interface, chunk, [parameter for parameter in candidates if parameter not in reached])
    counts = workers.sum(th.tensor([float(parameter in reached) for parameter in candidates]))
    return [parameter for parameter, count in zip(candidates, counts.tolist(), strict=True) if count > 0.0]


def _reached(interface: PolicyInterface, chunk: Batch, candidates: list[th.nn.Parameter]) -> set[th.nn.Parameter]:
    """Find the candidates that the action distribution at these states depends on."""
    total = distribution_sum(interface, chunk)
    if not (total.requires_grad and candidates):
        return set()
    gradients = th.autograd.grad(total, candidates, allow_unused=True)
    return {parameter for parameter, gradient in zip(candidates, gradients, strict=True) if gradient is not None}


def distribution_sum(interface: PolicyInterface, batch: Batch) -> th.Tensor:
    """
    Add up all parameters of the action distribution, so that one number carries their graph.

    :param interface: interface to the policy, in evaluation mode
    :param batch: the states
    :return: the sum, shape ()
    """
    with th.enable_grad(), unchecked_distributions():
        return th.stack([output.sum() for output in _outputs(interface, batch)]).sum()


def _outputs(interface: PolicyInterface, batch: Batch) -> Parameters:
    """Compute the parameters of the action distribution at these states."""
    distribution = interface.distribution(batch.states)
    return distribution_family(distribution).parameters(distribution, batch.actions)


def watched_outputs(interface: PolicyInterface, batch: Batch) -> Parameters:
    """
    Copy the parameters of the action distribution at a few states.

    :param interface: interface to the policy, in evaluation mode
    :param batch: states, of which the first few are used
    :return: the parameters
    """
    with th.no_grad(), unchecked_distributions():
        few = batch.take(batch.parts(_WATCHED_STATES)[0])
        return tuple(output.clone() for output in _outputs(interface, few))


def check_repeatable(interface: PolicyInterface, plain: PlainPolicy | Reason, batch: Batch) -> None:
    """
    Refuse an actor that gives different distributions for the same states. It draws no number from torch's generators.

    :param interface: interface to the policy, in evaluation mode
    :param plain: the same policy as a plain one, which needs no check, or the reason why it is not plain
    :param batch: the whole rollout
    :raises ValueError: if the distribution at some states differs between two evaluations by more than rounding
    """
    if not isinstance(plain, Reason):
        return
    device = interface.policy.device
    devices = [th.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with th.random.fork_rng(devices):
        first, second = watched_outputs(interface, batch), watched_outputs(interface, batch)
    # some operations add up in another order each time, on a GPU
    same = [th.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True) for a, b in zip(first, second, strict=True)]
    if not all(same):
        raise ValueError(
            "the policy gives different action distributions for the same states in evaluation mode, so the KL of a step "
            "cannot be told from its noise. Let noise and dropout depend on `self.training`, as torch.nn.Dropout does. "
            "The policy was not updated."
        )


@contextmanager
def watched_actor(interface: PolicyInterface, plain: PlainPolicy | Reason, batch: Batch) -> Iterator[None]:
    """
    Warn if the action distribution at some states has changed at the end of the context.

    Autograd does not see parameters that the actor reads through ``detach``, so the critic's fit may train them.

    :param interface: interface to the policy, in evaluation mode
    :param plain: the same policy as a plain one, which needs no check, or the reason why it is not plain
    :param batch: the whole rollout
    """
    if not isinstance(plain, Reason):
        yield
        return
    before = watched_outputs(interface, batch)
    yield
    after = watched_outputs(interface, batch)
    if not all(th.equal(old, new) for old, new in zip(before, after, strict=True)):
        warnings.warn(
            "The critic's fit has moved the action distribution, which the KL bound does not cover: the actor reads some "
            "parameters through `detach()`, so they were trained as the critic's.",
            UserWarning,
            stacklevel=2,
        )
