"""Which parameters the action distribution depends on, and whether the critic's fit has moved it."""

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
"""States that tell all of a plain policy."""

_WATCHED_STATES = 16
"""States at which the distribution is compared; a policy that moves at none of them is unlikely."""


def reached_parameters(
    interface: PolicyInterface, plain: PlainPolicy | Reason, batch: Batch, chunk_size: int, workers: Workers = ALONE
) -> list[th.nn.Parameter]:
    """
    Ask autograd which trainable parameters the action distribution depends on.

    Names do not decide: a ``value_encoder`` that feeds the actor is found, a frozen parameter is not. For a plain policy two
    states suffice. Any other may route states through different layers, so all states are checked.

    :param interface: of the policy, in evaluation mode
    :param plain: the same policy as a plain one, or why it is none
    :param batch: the whole rollout
    :param chunk_size: most states in one pass
    :param workers: the processes whose states count together
    :return: the actor's parameters, in the policy's order
    """
    candidates = [parameter for parameter in interface.policy.parameters() if parameter.requires_grad]
    chunks = batch.chunks(chunk_size) if isinstance(plain, Reason) else iter([batch.take(slice(0, _FEW))])
    reached: set[th.nn.Parameter] = set()
    for chunk in chunks:
        reached |= _reached(interface, chunk, [parameter for parameter in candidates if parameter not in reached])
    return [parameter for parameter in candidates if workers.any(parameter in reached)]


def _reached(interface: PolicyInterface, chunk: Batch, candidates: list[th.nn.Parameter]) -> set[th.nn.Parameter]:
    """Those of the candidates that the action distribution at these states depends on."""
    total = distribution_sum(interface, chunk)
    if not (total.requires_grad and candidates):
        return set()
    gradients = th.autograd.grad(total, candidates, allow_unused=True)
    return {parameter for parameter, gradient in zip(candidates, gradients, strict=True) if gradient is not None}


def distribution_sum(interface: PolicyInterface, batch: Batch) -> th.Tensor:
    """
    Add up all parameters of the action distribution, to see their graph.

    :param interface: of the policy, in evaluation mode
    :param batch: the states
    :return: the sum, shape ()
    """
    with th.enable_grad(), unchecked_distributions():
        return th.stack([output.sum() for output in _outputs(interface, batch)]).sum()


def _outputs(interface: PolicyInterface, batch: Batch) -> Parameters:
    """The parameters of the action distribution at these states."""
    distribution = interface.distribution(batch.states)
    return distribution_family(distribution).parameters(distribution, batch.actions)


@contextmanager
def watched_actor(interface: PolicyInterface, plain: PlainPolicy | Reason, batch: Batch) -> Iterator[None]:
    """
    Warn if the action distribution at some states is another one at the end: autograd does not see what the actor reads
    through ``detach``.

    :param interface: of the policy, in evaluation mode
    :param plain: the same policy as a plain one, which is not looked at, or why it is none
    :param batch: the whole rollout
    """
    if not isinstance(plain, Reason):
        yield
        return
    some = batch.take(slice(0, _WATCHED_STATES))
    with th.no_grad(), unchecked_distributions():
        before = [output.clone() for output in _outputs(interface, some)]
    yield
    with th.no_grad(), unchecked_distributions():
        after = _outputs(interface, some)
    if not all(th.equal(old, new) for old, new in zip(before, after, strict=True)):
        warnings.warn(
            "The critic's fit has moved the action distribution, and the KL bound does not cover that: the actor reads "
            "parameters through `detach()`, and they are the critic's for that reason.",
            UserWarning,
            stacklevel=2,
        )
