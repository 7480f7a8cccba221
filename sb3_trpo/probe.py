"""Which parameters the action distribution depends on, and how much memory one state costs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.batch import Batch
from sb3_trpo.kl import distribution_family, unchecked_distributions

GRAPH_BYTES = 32 * 2**20
"""Memory that autograd may keep for one chunk, when the chunk size is automatic; two chunks are the most at a time."""


class ActorProbe(NamedTuple):
    """
    What one small forward pass tells about the actor.

    :param parameters: the trainable parameters that the action distribution depends on
    :param bytes_per_state: memory that autograd keeps for one state, in bytes
    """

    parameters: list[th.nn.Parameter]
    bytes_per_state: int

    def chunk_size(self) -> int:
        """States whose graph fits in :data:`GRAPH_BYTES`, at least 1."""
        return max(1, GRAPH_BYTES // max(1, self.bytes_per_state))


def probe_actor(policy: ActorCriticPolicy, batch: Batch) -> ActorProbe:
    """
    Ask autograd which parameters the KL reaches, and what one state costs.

    Names do not decide: a ``value_encoder`` that feeds the actor is found, a frozen parameter is not. A policy that sends
    different states through different layers shows only those of the first two.

    :param policy: the policy, in evaluation mode
    :param batch: any states; the first two are used
    :return: the actor's parameters, in the policy's order, and the memory for one state
    """
    candidates = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    few = batch.take(slice(0, 2))
    saved = _SavedBytes([*policy.parameters(), *policy.buffers()])
    hooks = th.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack)
    with th.enable_grad(), unchecked_distributions(), hooks:
        distribution = policy.get_distribution(few.observations)
        outputs = distribution_family(distribution).parameters(distribution, few.actions)
        total = th.stack([output.sum() for output in outputs]).sum()
    if not total.requires_grad:
        return ActorProbe([], saved.total // len(few))
    gradients = th.autograd.grad(total, candidates, allow_unused=True)
    reached = [parameter for parameter, gradient in zip(candidates, gradients, strict=True) if gradient is not None]
    return ActorProbe(reached, saved.total // len(few))


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
