"""
Terms of a KL that lose no digits when the distributions are nearly equal.

With d = log π_new - log π_old, KL(old‖new) is the mean of -d under π_old. For a step of size ε this sum of numbers of size ε
is of size ε², so most digits cancel, and what is left may be rounding. If both distributions have a total probability of 1,
the mean of exp(d) - 1 is 0, and KL(old‖new) is also the mean of exp(d) - 1 - d, where every number is at least 0 and of size
ε². Source: http://joschu.net/blog/kl-approx.html, as the estimate k3.
"""

import torch as th

_SMALL = 0.1
"""Largest |d| for which the series is used: beyond it the direct form loses at most two digits."""
_N_TERMS = {th.float64: 9}
"""Terms of the series after the first, by precision; the next one is below the rounding of the first."""


def expm1_minus(d: th.Tensor) -> th.Tensor:
    """
    Compute exp(d) - 1 - d with a small relative error.

    :param d: any shape
    :return: of the same shape, at least 0
    """
    return th.where(d.abs() < _SMALL, _series(d), th.expm1(d) - d)


def _series(d: th.Tensor) -> th.Tensor:
    """Compute d²/2! + d³/3! + ... by Horner's scheme, where |d| is small; elsewhere any finite number."""
    d = d.clamp(-_SMALL, _SMALL)
    tail = d / (_N_TERMS.get(d.dtype, 4) + 2)
    for k in range(_N_TERMS.get(d.dtype, 4) + 1, 2, -1):
        tail = (1.0 + tail) * d / k
    return 0.5 * d.square() * (1.0 + tail)


def kl_terms(old: th.Tensor, new: th.Tensor) -> th.Tensor:
    """
    Compute the terms whose sum over the outcomes is KL(old‖new), from the log-probabilities of the outcomes.

    The term of an outcome that π_old forbids is its probability under π_new: the mean of exp(d) - 1 under π_old leaves
    that out. An outcome that only π_new forbids has an infinite term.

    :param old: log-probabilities of every outcome before the step, -inf for a forbidden one
    :param new: log-probabilities after it, of the same shape
    :return: terms of the same shape, at least 0, nats
    """
    forbidden = old == -th.inf
    d = th.where(forbidden, 1.0, new - th.where(forbidden, 0.0, old))
    probability = old.exp()
    direct = new.exp() - probability * (1.0 + d)  # exp(d) could overflow
    terms = th.where(d.abs() < _SMALL, probability * _series(d), direct)
    return th.where(d == -th.inf, th.inf, terms)


def in_float64(parameters: tuple[th.Tensor, ...]) -> tuple[th.Tensor, ...]:
    """
    Convert parameters, for a KL whose terms cancel: that would cost float32's digits.

    :param parameters: any tensors
    :return: the same in float64; unchanged on devices that have none
    """
    if any(part.device.type == "mps" for part in parameters):
        return parameters
    return tuple(part.double() for part in parameters)
