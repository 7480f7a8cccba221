"""
Convolutional networks without autograd: values, Jacobian products and gradients, with the interface of ``mlp.py``.

A product J v that reuses the layers' inputs takes two convolutions per layer, one with v and one with the weights. Autograd
would run the whole network again, or differentiate its backward pass. All arrays are channels-last, the fastest layout for
torch's convolutions on the CPU.

Shapes: B images of c channels, h rows and w columns.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional

from sb3_trpo.policies.image_normalization import ImageNormalization

Array: TypeAlias = np.ndarray

_SLOPES: dict[type[nn.Module], Callable[[th.Tensor], th.Tensor]] = {
    nn.ReLU: lambda y: y > 0.0,
    nn.Tanh: lambda y: 1.0 - y * y,
}
"""Activations, and their slopes as functions of their outputs."""


def why_not_cnn(modules: Sequence[nn.Module]) -> str | None:
    """
    Tell whether :class:`Cnn` computes what these modules do.

    :param modules: layers in order
    :return: None if it does; otherwise the first reason why not
    """
    layers = modules[1:] if type(modules[0]) is ImageNormalization else modules
    for module in layers:
        if type(module) not in (nn.Conv2d, nn.Linear, nn.Flatten, *_SLOPES):
            return f"the network has a {type(module).__name__}"
        if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or module.padding_mode != "zeros"):
            return "a convolution does not pad its input with a given number of zeros"
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
            return "a Flatten keeps more than the first dimension"
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is None:
            return "a layer has no bias"
        for name, parameter in module.named_parameters():
            if parameter.dtype != th.float32 or parameter.device.type != "cpu":
                return f"a {name} is {parameter.dtype} on {parameter.device.type}, not float32 on the CPU"
    if not layers or type(layers[0]) is not nn.Conv2d:
        return f"the network begins with {type(layers[0]).__name__ if layers else 'nothing'}, not with Conv2d"
    for module, after in pairwise(module for module in layers if type(module) is not nn.Flatten):
        if type(module) in _SLOPES and type(after) in _SLOPES:  # it overwrites its input, which the slope needs
            return f"a {type(after).__name__} follows a {type(module).__name__}"
    return None


class Cnn:
    """
    A network of Conv2d, activation, …, Flatten, Linear, activation, …, with the parameters of torch modules on the CPU. It
    may begin with a normalisation of the images.

    :param modules: layers that :func:`why_not_cnn` accepts
    :param scale: number by which the images are divided
    """

    differentiable = True
    block_rows = 128
    """Number of images that are processed at a time."""

    def __init__(self, modules: Sequence[nn.Module], scale: float) -> None:
        self._normalization = modules[0] if isinstance(modules[0], ImageNormalization) else None
        self._modules = modules if self._normalization is None else modules[1:]
        self._scale = np.float32(scale)

    @property
    def parameters(self) -> list[th.Tensor]:
        """Return weight and bias of every layer, in order."""
        return [module._parameters[name] for module in self._layers() for name in ("weight", "bias")]  # type: ignore[misc]

    @property
    def n_out(self) -> int:
        """Return the number of output features."""
        return len(self.parameters[-1])

    def refresh(self) -> None:
        """Do nothing: the parameters are read from the modules every time."""

    def __call__(self, images: Array) -> Array:
        """
        Evaluate the network.

        :param images: shape (B, c, h, w)
        :return: shape (B, n_out)
        """
        with th.no_grad():
            x = self._read(images)
            for module in self._modules:
                x = _forward(module, x)
        return x.numpy()

    def trace(self, images: Array) -> list[Array]:
        """
        Evaluate the network and keep the results of all layers.

        :param images: shape (B, c, h, w)
        :return: the images as the first convolution reads them, and the output of every layer
        """
        with th.no_grad():
            values = [self._read(images)]
            for module in self._modules:
                values.append(_forward(module, values[-1]))
        return [value.numpy() for value in values]

    def jvp(self, trace: Sequence[Array], tangents: Sequence[Array]) -> Array:
        """
        Compute J v, the change of the output with the parameters.

        :param trace: result of :meth:`trace`
        :param tangents: v, shaped like :attr:`parameters`
        :return: shape (B, n_out)
        """
        values, parts = map(th.from_numpy, trace), map(th.from_numpy, tangents)
        moved: th.Tensor | None = None
        with th.no_grad():
            value = next(values)
            for module, result in zip(self._modules, values, strict=True):
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    by_weights = _affine(module, value, next(parts), next(parts))
                    moved = by_weights if moved is None else by_weights.add_(_affine(module, moved, module.weight, None))
                else:
                    assert moved is not None
                    moved = moved.flatten(1) if isinstance(module, nn.Flatten) else moved.mul_(_slope(module, result))
                value = result
        assert moved is not None
        return moved.numpy()

    def vjp(self, trace: Sequence[Array], cotangent: Array, out: Sequence[Array]) -> None:
        """
        Compute Jᵀu, the gradient of Σ u · output with respect to the parameters.

        :param trace: result of :meth:`trace`
        :param cotangent: u, shape (B, n_out)
        :param out: arrays to write to, shaped like :attr:`parameters`
        """
        pull = th.from_numpy(cotangent)
        parts = map(th.from_numpy, reversed(out))
        values = [th.from_numpy(value) for value in trace]
        with th.no_grad():
            for i in reversed(range(len(self._modules))):
                module, value = self._modules[i], values[i]
                if isinstance(module, nn.Conv2d):
                    pull, weight, bias = _convolution_backward(module, value, pull, with_input=i > 0)
                    next(parts).copy_(bias)
                    next(parts).copy_(weight)
                elif isinstance(module, nn.Linear):
                    next(parts).copy_(pull.sum(dim=0))
                    th.mm(pull.T, value, out=next(parts))
                    pull = pull.mm(module.weight)
                elif isinstance(module, nn.Flatten):
                    pull = pull.reshape(value.shape).contiguous(memory_format=th.channels_last)
                else:
                    pull = pull.mul_(_slope(module, values[i + 1]))

    def _layers(self) -> list[nn.Module]:
        return [module for module in self._modules if isinstance(module, (nn.Conv2d, nn.Linear))]

    def _read(self, images: Array) -> th.Tensor:
        n_images, channels, height, width = images.shape
        x = np.empty((n_images, height, width, channels), dtype=np.float32)
        for channel in range(channels):  # one pass; torch would need three: to move, to cast and to divide
            np.divide(images[:, channel], self._scale, out=x[..., channel])
        if self._normalization is not None:
            x -= self._normalization.mean.permute(1, 2, 0).contiguous().numpy()
            x /= self._normalization.std.numpy()
        return th.from_numpy(x).permute(0, 3, 1, 2)


def _forward(module: nn.Module, x: th.Tensor) -> th.Tensor:
    """Apply one layer; activations overwrite their input."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return _affine(module, x, module.weight, module.bias)
    if isinstance(module, nn.Flatten):
        return x.flatten(1)
    return x.relu_() if isinstance(module, nn.ReLU) else x.tanh_()


def _affine(module: nn.Conv2d | nn.Linear, x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None) -> th.Tensor:
    """Apply the layer with another weight and bias."""
    if isinstance(module, nn.Linear):
        return functional.linear(x, weight, bias)
    return functional.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _convolution_backward(
    module: nn.Conv2d, value: th.Tensor, pull: th.Tensor, with_input: bool
) -> tuple[Any, th.Tensor, th.Tensor]:
    """Compute the gradients of input (None if not wanted), weight and bias in one call, which is faster than three."""
    assert module.bias is not None
    shape, geometry = list(module.bias.shape), (module.stride, module.padding, module.dilation)
    wanted = [with_input, True, True]
    gradients: tuple[Any, th.Tensor, th.Tensor] = th.ops.aten.convolution_backward(
        pull, value, module.weight, shape, *geometry, False, [0, 0], module.groups, wanted
    )
    return gradients


def _slope(module: nn.Module, result: th.Tensor) -> th.Tensor:
    return _SLOPES[type(module)](result)
