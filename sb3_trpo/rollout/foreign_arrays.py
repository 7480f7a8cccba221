"""Names arrays that wrappers of SB3 cannot compute with, where they only fail an assertion."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

_WRAPPERS = (VecFrameStack, VecMonitor, VecNormalize, VecTransposeImage)
_QUANTITIES = {
    "obs": "observations",
    "observation": "observations",
    "observations": "observations",
    "rewards": "rewards",
    "dones": "dones",
}
"""Names of variables in the wrappers' ``reset`` and ``step_wait``, and what they hold."""


@contextmanager
def foreign_arrays_named() -> Iterator[None]:
    """
    Replace the error of a wrapper of SB3 that has got arrays of another library, or lists, by one that names their type.

    TRPO reads such arrays itself (:mod:`~sb3_trpo.rollout.arrays`), but between it and the environment a wrapper of SB3 must
    read them too.

    :raises TypeError: naming the wrapper, the environment that it wraps, the quantity and the type
    """
    try:
        yield
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        message = _describe(error)
        if message is None:
            raise
        raise TypeError(message) from error


def _describe(error: Exception) -> str | None:
    """Tell what a wrapper could not read; None if the error has another cause."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if isinstance(frame.f_locals.get("self"), VecEnv)]
    wrapper: VecEnvWrapper | None = frames[-1].f_locals["self"] if frames else None
    if not isinstance(wrapper, _WRAPPERS):
        return None
    for frame in frames:
        if frame.f_locals["self"] is wrapper and frame.f_code.co_name in ("reset", "step_wait"):
            for name, quantity in _QUANTITIES.items():
                cls = _foreign(frame.f_locals.get(name))
                if cls is not None:
                    inner = type(wrapper.venv).__name__
                    return (
                        f"the {quantity} of {inner} are a {cls.__module__}.{cls.__qualname__}, and {type(wrapper).__name__} "
                        f"knows arrays of NumPy only: convert them in the `reset` and `step_wait` of {inner}"
                    ).replace("builtins.", "")
    return None


def _foreign(value: Any) -> type | None:
    """Return the type of a value, or of one in a dict, that is no array of NumPy."""
    if isinstance(value, dict):
        return next((cls for cls in map(_foreign, value.values()) if cls is not None), None)
    return None if value is None or isinstance(value, np.ndarray) else type(value)
