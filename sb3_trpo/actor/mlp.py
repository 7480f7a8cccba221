"""
Plain MLPs in NumPy: values, Jacobian products and gradients without autograd's overhead.

Computing a layer of SB3's default networks takes a few microseconds, less than torch needs to record it. On the CPU the
arrays here are views of the torch parameters, so they are neither copied nor outdated.

Shapes: B rows, n_in and n_out features of a layer.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch as th
from torch import nn

from sb3_trpo.step.flat import unflatten_like

Array: TypeAlias = np.ndarray


class Activation(NamedTuple):
    """
    An elementwise function.

    :param value: f(x)
    :param slope: f'(x) as a function of f(x); None if f(x) does not determine it
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array] | None


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, np.float32(0.0)))


def _elu(module: nn.Module) -> Activation:
    assert isinstance(module, nn.ELU)
    alpha = module.alpha
    return Activation(
        lambda x: np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        # the output has the sign of the input only if alpha is not negative
        (lambda y: np.where(y > 0.0, np.float32(1.0), y + np.float32(alpha))) if alpha >= 0.0 else None,
    )


def _leaky_relu(module: nn.Module) -> Activation:
    assert isinstance(module, nn.LeakyReLU)
    slope = np.float32(module.negative_slope)
    return Activation(
        lambda x: np.where(x > 0.0, x, slope * x),
        (lambda y: np.where(y > 0.0, np.float32(1.0), slope)) if slope >= 0.0 else None,
    )


_ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], Activation]] = {
    nn.Tanh: lambda _: Activation(np.tanh, lambda y: np.float32(1.0) - y * y),
    nn.ReLU: lambda _: Activation(lambda x: np.maximum(x, 0.0), lambda y: (y > 0.0).astype(np.float32)),
    nn.Sigmoid: lambda _: Activation(_sigmoid, lambda y: y * (np.float32(1.0) - y)),
    nn.Identity: lambda _: Activation(lambda x: x, np.ones_like),
    nn.ELU: _elu,
    nn.LeakyReLU: _leaky_relu,
    nn.SiLU: lambda _: Activation(lambda x: x * _sigmoid(x), None),
    nn.Mish: lambda _: Activation(lambda x: x * np.tanh(_softplus(x)), None),
    nn.Softsign: lambda _: Activation(lambda x: x / (np.float32(1.0) + np.abs(x)), None),
}


def why_not_mlp(modules: Sequence[nn.Module]) -> str | None:
    """
    Tell whether :class:`Mlp` computes what these modules do.

    :param modules: layers in order
    :return: None if it does; otherwise the first reason why not
    """
    for i, module in enumerate(modules):
        if i % 2 == 0 and type(module) is not nn.Linear:
            return f"the network has a {type(module).__name__} where a Linear is expected"
        if i % 2 == 1 and type(module) not in _ACTIVATIONS:
            return f"the network has a {type(module).__name__} where a known activation is expected"
    if len(modules) % 2 == 0:
        return "the network does not end with a Linear"
    for name, parameter in nn.ModuleList(modules).named_parameters():
        if parameter.dtype != th.float32:
            return f"a {name.split('.')[-1]} is {parameter.dtype}, not float32"
    if any(module.bias is None for module in modules if isinstance(module, nn.Linear)):
        return "a layer has no bias"
    return None


class ParameterViews:
    """
    Parameters as NumPy arrays: views of parameters on the CPU, copies of others.

    :param places: for each parameter the dict of a module that holds it, and its name there; so a replaced one is found
    """

    def __init__(self, places: Sequence[tuple[dict[str, Any], str]]) -> None:
        self._places = places
        self._read()

    @property
    def tensors(self) -> list[th.Tensor]:
        """Return the parameters themselves."""
        return [place[name] for place, name in self._places]

    def refresh(self) -> bool:
        """
        Read the parameters again, unless they are views that show every change.

        Copies are always made anew: a change through ``parameter.data`` leaves no trace.

        :return: whether they were read again
        """
        if self._live and self._pointers == [place[name].data_ptr() for place, name in self._places]:
            return False
        self._read()
        return True

    def _read(self) -> None:
        tensors = [tensor.detach() for tensor in self.tensors]
        self._pointers = [tensor.data_ptr() for tensor in tensors]
        self._live = all(tensor.device.type == "cpu" for tensor in tensors)
        if self._live:
            self.arrays = [tensor.numpy() for tensor in tensors]
        else:  # one transfer for all
            vector = th.cat([tensor.flatten() for tensor in tensors]).cpu()
            self.arrays = [part.numpy() for part in unflatten_like(tensors, vector)]


class Mlp:
    """
    A network of Linear, activation, …, Linear, with the parameters of torch modules.

    :param modules: layers that :func:`why_not_mlp` accepts
    """

    block_rows = 1024
    """Number of rows that are processed at a time: their hidden layers stay in the processor's cache."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._views = ParameterViews([(module._parameters, name) for module in modules[::2] for name in ("weight", "bias")])
        self._activations = [_ACTIVATIONS[type(module)](module) for module in modules[1::2]]
        self._ones = np.ones(0, dtype=np.float32)
        self._arrange()

    @property
    def parameters(self) -> list[th.Tensor]:
        """Return weight and bias of every layer, in order."""
        return self._views.tensors

    @property
    def n_out(self) -> int:
        """Return the number of output features."""
        return len(self._layers[-1][1])

    @property
    def differentiable(self) -> bool:
        """Tell whether the slopes of all activations are known."""
        return all(activation.slope is not None for activation in self._activations)

    def refresh(self) -> None:
        """Read parameters again that were replaced, or that changed on another device."""
        if self._views.refresh():
            self._arrange()

    def __call__(self, x: Array) -> Array:
        """
        Evaluate the network.

        :param x: shape (B, n_in)
        :return: shape (B, n_out)
        """
        return self.trace(x)[-1]

    def trace(self, x: Array) -> list[Array]:
        """
        Evaluate the network and keep the results of all layers.

        :param x: shape (B, n_in)
        :return: x, the hidden activations, and the output
        """
        values = [x]
        for i, (weight, bias) in enumerate(self._layers):
            x = x.dot(weight)  # half the overhead of @
            x += bias
            if i < len(self._activations):
                x = self._activations[i].value(x)
            values.append(x)
        return values

    def jvp(self, trace: Sequence[Array], tangents: Sequence[Array], inputs: Array | None = None) -> Array:
        """
        Compute J v, the change of the output with the parameters.

        :param trace: result of :meth:`trace`
        :param tangents: v, shaped like :attr:`parameters`
        :param inputs: change of the input, shape (B, n_in); None: none
        :return: shape (B, n_out)
        """
        moved = trace[0].dot(tangents[0].T)
        moved += tangents[1]
        if inputs is not None:
            moved += inputs.dot(self._layers[0][0])
        for i, (weight, _) in enumerate(self._layers[1:], start=1):
            moved *= self._slope(i - 1, trace[i])
            moved = moved.dot(weight)
            moved += trace[i].dot(tangents[2 * i].T)
            moved += tangents[2 * i + 1]
        return np.asarray(moved)

    def vjp(self, trace: Sequence[Array], cotangent: Array, out: Sequence[Array], to_inputs: bool = False) -> Array:
        """
        Compute Jᵀu, the gradient of Σ u · output with respect to the parameters.

        :param trace: result of :meth:`trace`
        :param cotangent: u, shape (B, n_out)
        :param out: arrays to write to, shaped like :attr:`parameters`
        :param to_inputs: whether to go on to the input
        :return: gradient with respect to the input, shape (B, n_in), if that was asked for
        """
        if len(self._ones) != len(cotangent):
            self._ones = np.ones(len(cotangent), dtype=np.float32)
        for i in reversed(range(len(self._layers))):
            np.dot(cotangent.T, trace[i], out=out[2 * i])
            np.dot(self._ones, cotangent, out=out[2 * i + 1])  # the sum over the rows
            if i > 0:
                cotangent = cotangent.dot(self._layers[i][0].T)
                cotangent *= self._slope(i - 1, trace[i])
        return cotangent.dot(self._layers[0][0].T) if to_inputs else cotangent

    def _slope(self, i: int, output: Array) -> Array:
        slope = self._activations[i].slope
        assert slope is not None, "differentiable is False"
        return np.asarray(slope(output))

    def _arrange(self) -> None:
        arrays = self._views.arrays
        self._layers = [(arrays[i].T, arrays[i + 1]) for i in range(0, len(arrays), 2)]
