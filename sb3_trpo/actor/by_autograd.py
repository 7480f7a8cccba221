"""The actor of any policy, differentiated by autograd."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch as th
from stable_baselines3.common.distributions import Distribution
from torch.nn.attention import SDPBackend, sdpa_kernel

from sb3_trpo.actor.interface import Linearisation, Objective
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.distributions.validation import unchecked_distributions
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.step.flat import flatten, unflatten_like


class AutogradActor:
    """
    Differentiates any policy by autograd.

    :param interface: interface to the policy
    """

    def __init__(self, interface: PolicyInterface) -> None:
        self._interface = interface

    def distribution(self, states: States) -> Distribution:
        """See :meth:`ActorNetwork.distribution`."""
        with th.no_grad(), unchecked_distributions():
            return self._interface.distribution(states)

    def gradient(self, objective: Objective, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> th.Tensor:
        """See :meth:`ActorNetwork.gradient`."""
        with unchecked_distributions():
            total = objective(chunk, self._interface.distribution(chunk.states)).sum()
        if not total.requires_grad:  # at these states it may not depend on any trained parameter
            return total.new_zeros(sum(parameter.numel() for parameter in parameters))
        return flatten(th.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))

    def linearise(self, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> Linearisation:
        """See :meth:`ActorNetwork.linearise`."""
        return _AutogradLinearisation(self._interface, chunk, parameters)


class _AutogradLinearisation:
    """Computes J v as the derivative of the linear map u -> Jᵀu, so that autograd gives both products."""

    def __init__(self, interface: PolicyInterface, chunk: Batch, parameters: Sequence[th.nn.Parameter]) -> None:
        # the fused attention kernels cannot be differentiated twice
        with unchecked_distributions(), sdpa_kernel(SDPBackend.MATH):
            distribution = interface.distribution(chunk.states)
            family = distribution_family(distribution)
            self._outputs = family.parameters(distribution, chunk.actions)
        self._metric = family.metric(tuple(output.detach() for output in self._outputs))
        self._weigh = chunk.weighted
        self._parameters = parameters
        # a frozen std, for instance, has no graph: J = 0
        self._live = [output for output in self._outputs if output.requires_grad]
        # u is zero: only the graph of the map matters
        self._cotangents = [th.zeros_like(output, requires_grad=True) for output in self._live]
        with _second_derivatives():
            self._pullback = self._vjp(self._cotangents, create_graph=True) if self._live else ()

    def product(self, vector: th.Tensor) -> th.Tensor:
        """See :meth:`Linearisation.product`."""
        if not self._live:
            return th.zeros_like(vector)
        pairs = zip(self._pullback, unflatten_like(self._parameters, vector), strict=True)
        linear = [(pulled, direction) for pulled, direction in pairs if pulled.requires_grad]
        if not linear:
            return th.zeros_like(vector)
        pulled, directions = zip(*linear, strict=True)
        with _second_derivatives():
            live = th.autograd.grad(pulled, self._cotangents, directions, retain_graph=True, materialize_grads=True)
        live_tangent = iter(live)
        tangent = tuple(next(live_tangent) if output.requires_grad else th.zeros_like(output) for output in self._outputs)
        products = zip(self._metric(tangent), self._outputs, strict=True)
        live_weighted = [self._weigh(product) for product, output in products if output.requires_grad]
        return flatten(self._vjp(live_weighted))

    def _vjp(self, cotangents: Sequence[th.Tensor], create_graph: bool = False) -> tuple[th.Tensor, ...]:
        """Compute Jᵀu, one tensor per parameter."""
        return th.autograd.grad(
            self._live,
            self._parameters,
            cotangents,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Explain torch's error if an operation has no second derivative."""
    try:
        yield
    except RuntimeError as error:
        if any(part in str(error) for part in ("is not implemented", "double backward", "donated buffer")):
            raise ValueError(
                "the actor has an operation that cannot be differentiated twice, which Fisher-vector products need "
                f"(modules under torch.compile cannot, nor can some activations): {error}"
            ) from error
        raise
