"""Adam steps without the Python overhead that dominates for small networks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch as th
from torch.optim import optimizer as torch_optimizer

from sb3_trpo.originals import altered_method


@contextmanager
def optimizer_steps(optimizer: th.optim.Optimizer, parameters: Sequence[th.nn.Parameter]) -> Iterator[Callable[[], None]]:
    """
    Make a function that takes an optimizer's steps: Adam and AdamW update all parameters in one kernel.

    On the CPU their bookkeeping around the kernel takes several times as long as the kernel, so after the first step the
    kernel is called directly. Flags and state end up as the optimizer's own ``step`` leaves them.

    :param optimizer: any optimizer
    :param parameters: the parameters that it moves
    :return: the function, to be called when the parameters hold their gradients
    """
    groups = optimizer.param_groups
    adam = type(optimizer) in (th.optim.Adam, th.optim.AdamW) and not any(group["differentiable"] for group in groups)
    adam = adam and all(parameter.is_contiguous() for parameter in parameters)  # the fused kernel ignores strides
    # the fused kernel needs the step counts on the parameters' device; a loaded state may have them on the CPU
    if not adam or any(state["step"].device != p.device for p, state in optimizer.state.items() if "step" in state):
        yield lambda: optimizer.step()
        return
    saved = [(group, group["fused"], group["foreach"]) for group in groups]
    for group, *_ in saved:
        group.update(fused=True, foreach=False)
    kernel: _AdamKernel | None = None

    def take_step() -> None:
        nonlocal kernel
        gradients = [parameter.grad for parameter in parameters]
        if kernel is not None:
            if kernel.step(gradients):
                return
            kernel.write_back()  # this mini-batch reaches another part of the critic
        optimizer.step()
        reached = [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        kernel = _AdamKernel(optimizer, parameters, gradients) if _AdamKernel.serves(optimizer, reached) else None

    try:
        yield take_step
    finally:
        if kernel is not None:
            kernel.write_back()
        for group, fused, foreach in saved:
            group.update(fused=fused, foreach=foreach)


def _hooks(optimizer: th.optim.Optimizer) -> list[Any]:
    """Collect what torch calls before and after a step of this optimizer, or of any."""
    of_all = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
    return [*of_all, optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]


class _AdamKernel:
    """
    Torch's fused Adam or AdamW kernel on the state of an optimizer that has taken a step.

    :param optimizer: Adam or AdamW
    :param parameters: the parameters that it moves
    :param gradients: the gradient of each; None for a parameter that it leaves alone
    """

    def __init__(
        self, optimizer: th.optim.Optimizer, parameters: Sequence[th.nn.Parameter], gradients: Sequence[th.Tensor | None]
    ) -> None:
        group = optimizer.param_groups[0]
        self._absent = [gradient is None for gradient in gradients]
        moved = [parameter for parameter, absent in zip(parameters, self._absent, strict=True) if not absent]
        state = [optimizer.state[parameter] for parameter in moved]
        self._kernel = th._fused_adamw_ if group["decoupled_weight_decay"] else th._fused_adam_
        self._parameters = [parameter.detach() for parameter in moved]  # detached, so that steps need no no_grad
        self._moments = [s["exp_avg"] for s in state], [s["exp_avg_sq"] for s in state]
        self._counts = [s["step"] for s in state]
        self._count = self._counts[0].clone()  # one for all: they are equal
        self._settings = {
            "lr": group["lr"],
            "beta1": group["betas"][0],
            "beta2": group["betas"][1],
            "weight_decay": group["weight_decay"],
            "eps": group["eps"],
            "amsgrad": False,
            "maximize": group["maximize"],
        }

    @staticmethod
    def serves(optimizer: th.optim.Optimizer, parameters: Sequence[th.nn.Parameter]) -> bool:
        """Tell whether the kernel alone does what ``optimizer.step()`` would do."""
        group = optimizer.param_groups[0]
        return (
            hasattr(th, "_fused_adam_")
            and hasattr(th, "_fused_adamw_")
            and len(optimizer.param_groups) == 1
            and not (group["amsgrad"] or group["capturable"] or isinstance(group["lr"], th.Tensor))
            and "decoupled_weight_decay" in group
            and altered_method([optimizer]) is None
            and not any(_hooks(optimizer))
            and all(parameter.device.type == "cpu" and parameter in optimizer.state for parameter in parameters)
            and len({optimizer.state[parameter]["step"].item() for parameter in parameters}) == 1  # at least one, all equal
        )

    def step(self, gradients: Sequence[th.Tensor | None]) -> bool:
        """
        Take one step.

        :param gradients: one per parameter
        :return: False, without a step, if they belong to another part of the critic
        """
        if [gradient is None for gradient in gradients] != self._absent:
            return False
        present = [gradient for gradient in gradients if gradient is not None]
        self._count += 1
        self._kernel(self._parameters, present, *self._moments, [], [self._count] * len(present), **self._settings)
        return True

    def write_back(self) -> None:
        """Write the step counts back to the optimizer."""
        for count in self._counts:
            count.copy_(self._count)
