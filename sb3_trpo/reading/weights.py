"""Reads tensors with torch's own restricted reader."""

import io
from typing import Any

import torch as th

from sb3_trpo.reading.archives import rewritten

_ADVICE = ("weights_only", "torch.load", "Check the documentation")
"""Parts of torch's messages that advise to let the file run."""


def read_weights(content: bytes) -> Any:
    """
    Read a file of torch that holds tensors, numbers and containers of them; nothing else in it runs.

    :param content: the file
    :return: what it holds, on the CPU
    :raises ValueError: if it is damaged or holds anything else
    """
    content = rewritten(content)
    try:
        return th.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reasons = [line for line in lines if line and not any(part in line for part in _ADVICE)]
        raise ValueError(reasons[0] if reasons else type(error).__name__) from None
