"""How many states fit into one pass of the policy step."""

from collections.abc import Sequence

import torch as th

from sb3_trpo.actor.reached_parameters import distribution_sum
from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.interface import PolicyInterface

GRAPH_BYTES = 32 * 2**20
"""Memory that autograd may keep for one chunk, when the chunk size is automatic; two chunks are the most at a time."""
GPU_GRAPH_BYTES = 512 * 2**20
"""The same on a GPU, which is idle between small chunks."""

_FEW = 2
"""States that are looked at."""


def automatic_chunk_size(interface: PolicyInterface, batch: Batch) -> int:
    """
    Divide the memory for one chunk by the memory that autograd keeps for one state.

    :param interface: of the policy, in evaluation mode
    :param batch: the whole rollout
    :return: states in one pass, at least 1
    """
    on_cpu = interface.policy.device.type == "cpu"
    return max(1, (GRAPH_BYTES if on_cpu else GPU_GRAPH_BYTES) // max(1, bytes_per_state(interface, batch)))


def bytes_per_state(interface: PolicyInterface, batch: Batch) -> int:
    """
    Measure the memory that autograd keeps for one state in a forward pass of the actor.

    :param interface: of the policy, in evaluation mode
    :param batch: the whole rollout
    :return: bytes
    """
    few = batch.take(slice(0, _FEW))
    saved = _SavedBytes([*interface.policy.parameters(), *interface.policy.buffers()])
    with th.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
        distribution_sum(interface, few)
    return saved.total // len(few)


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
