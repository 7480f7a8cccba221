"""Which parameters the action distribution depends on, and how much memory one state costs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.actor.plain_policy import why_not_plain
from sb3_trpo.batch.batch import Batch
from sb3_trpo.distributions.families import Parameters, distribution_family, unchecked_distributions

GRAPH_BYTES = 32 * 2**20
"""Memory that autograd may keep for one chunk, when the chunk size is automatic; two chunks are the most at a time."""
GPU_GRAPH_BYTES = 512 * 2**20
"""The same on a GPU, which is idle between small chunks."""

_WATCHED_STATES = 16
"""States at which the distribution is compared; a policy that moves at none of them is unlikely."""


class ActorProbe(NamedTuple):
    """
    What forward passes tell about the actor.

    :param parameters: the trainable parameters that the action distribution depends on
    :param bytes_per_state: memory that autograd keeps for one state, in bytes
    :param graph_bytes: memory that it may keep for one chunk, in bytes
    """

    parameters: list[th.nn.Parameter]
    bytes_per_state: int
    graph_bytes: int

    def chunk_size(self) -> int:
        """States whose graph fits in the memory for one chunk, at least 1."""
        return max(1, self.graph_bytes // max(1, self.bytes_per_state))


def probe_actor(policy: ActorCriticPolicy, batch: Batch, chunk_size: int | None = None) -> ActorProbe:
    """
    Ask autograd which parameters the KL reaches, and what one state costs.

    Names do not decide: a ``value_encoder`` that feeds the actor is found, a frozen parameter is not. Two states tell all
    of a plain policy; any other may send different states through different layers, so it is asked of every state.

    :param policy: the policy, in evaluation mode
    :param batch: the whole rollout
    :param chunk_size: most states in one pass; None: as many as :meth:`ActorProbe.chunk_size` says
    :return: the actor's parameters, in the policy's order, and the memory for one state
    """
    candidates = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    few = batch.take(slice(0, 2))
    saved = _SavedBytes([*policy.parameters(), *policy.buffers()])
    with th.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
        reached = _reached(policy, few, candidates)
    graph_bytes = GRAPH_BYTES if policy.device.type == "cpu" else GPU_GRAPH_BYTES
    probe = ActorProbe([], saved.total // len(few), graph_bytes)
    if why_not_plain(policy) is not None:
        for chunk in batch.chunks(chunk_size or probe.chunk_size()):
            reached |= _reached(policy, chunk, [parameter for parameter in candidates if parameter not in reached])
    return probe._replace(parameters=[parameter for parameter in candidates if parameter in reached])


def _reached(policy: ActorCriticPolicy, states: Batch, candidates: list[th.nn.Parameter]) -> set[th.nn.Parameter]:
    """Those of the candidates that the action distribution at these states depends on."""
    with th.enable_grad(), unchecked_distributions():
        total = th.stack([output.sum() for output in _outputs(policy, states)]).sum()
    if not (total.requires_grad and candidates):
        return set()
    gradients = th.autograd.grad(total, candidates, allow_unused=True)
    return {parameter for parameter, gradient in zip(candidates, gradients, strict=True) if gradient is not None}


@contextmanager
def watched_actor(policy: ActorCriticPolicy, batch: Batch) -> Iterator[None]:
    """
    Warn if the action distribution at some states is another one at the end: autograd does not see what the actor reads
    through ``detach``.

    :param policy: the policy, in evaluation mode; a plain one is not looked at
    :param batch: the whole rollout
    """
    if why_not_plain(policy) is None:
        yield
        return
    some = batch.take(slice(0, _WATCHED_STATES))
    with th.no_grad(), unchecked_distributions():
        before = [output.clone() for output in _outputs(policy, some)]
    yield
    with th.no_grad(), unchecked_distributions():
        after = _outputs(policy, some)
    if not all(th.equal(old, new) for old, new in zip(before, after, strict=True)):
        warnings.warn(
            "The critic's fit has moved the action distribution, and the KL bound does not cover that: the actor reads "
            "parameters through `detach()`, and they are the critic's for that reason.",
            UserWarning,
            stacklevel=2,
        )


def _outputs(policy: ActorCriticPolicy, states: Batch) -> Parameters:
    """The parameters of the action distribution at these states."""
    distribution = policy.get_distribution(states.observations)
    return distribution_family(distribution).parameters(distribution, states.actions)


class _SavedBytes:
    """Counts the bytes that autograd saves for the backward pass, parameters (frozen ones too) and buffers apart."""

    def __init__(self, constants: Sequence[th.Tensor]) -> None:
        self.total = 0
        self._seen = {constant.data_ptr() for constant in constants}

    def pack(self, tensor: th.Tensor) -> th.Tensor:
        if tensor.data_ptr() not in self._seen:
            self._seen.add(tensor.data_ptr())
            self.total += tensor.numel() * tensor.element_size()
        return tensor

    @staticmethod
    def unpack(tensor: th.Tensor) -> th.Tensor:
        return tensor
