"""Traces an exported policy with ``torch.export``, for any size of the batch."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch as th

from sb3_trpo.export.comparison import ExportError, Run
from sb3_trpo.export.module import ExportedPolicy
from sb3_trpo.export.samples import random_values

_TRACED_BATCH = 3
"""Size of the batch while tracing; torch would fix a batch of 1."""

METADATA_FILE = "metadata.json"
"""Name of the file in the archive that tells inputs, outputs, spaces and versions."""


def traced_program(module: ExportedPolicy) -> th.export.ExportedProgram:
    """
    Trace a policy.

    :param module: the policy
    :return: the program; the first dimension of each input is the batch, of any size
    :raises ExportError: if torch cannot trace the policy, with torch's reason
    """
    rng = np.random.default_rng(1)
    samples = tuple(th.as_tensor(random_values(each, _TRACED_BATCH, rng)) for each in module.inputs)
    sizes = tuple({0: th.export.Dim.DYNAMIC} for _ in samples)
    with quiet_torch(), redirect_stderr(io.StringIO()), th.no_grad():  # after an error torch prints its graph
        try:
            return th.export.export(module.eval(), samples, dynamic_shapes={"inputs": sizes}, strict=False)
        except Exception as error:  # torch documents no class of errors
            raise ExportError(f"torch.export cannot trace the policy: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """
    Shorten an error of torch, which may have hundreds of lines.

    :param error: the error
    :return: its class, and the first line of its message
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Silence warnings and logs about torch's own code, and the checks of distributions, which cannot be traced."""
    distribution = th.distributions.Distribution
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers], distribution._validate_args
    try:
        distribution.set_default_validate_args(False)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        distribution.set_default_validate_args(before[1])
        for logger, level in zip(loggers, before[0], strict=True):
            logger.setLevel(level)


def program_bytes(program: th.export.ExportedProgram, module: ExportedPolicy, metadata: dict[str, Any]) -> bytes:
    """
    Make the bytes of the file that ``torch.export.save`` writes.

    :param program: the program
    :param module: the policy that it was traced from
    :param metadata: what the file tells about itself
    :return: the bytes
    """
    file = io.BytesIO()
    with quiet_torch():
        th.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)})
    return file.getvalue()


def run_program(made: bytes) -> Run:
    """
    Load a program.

    :param made: the bytes of its file
    :return: runs it
    """
    with quiet_torch():
        module = th.export.load(io.BytesIO(made)).module()

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        with th.no_grad():
            return [output.numpy() for output in module(*map(th.as_tensor, values))]

    return run
