"""Turns a traced policy into an ONNX model, and runs it with onnxruntime."""

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch as th

from sb3_trpo.checks import Rule, check, is_integer
from sb3_trpo.export.comparison import ExportError, Run
from sb3_trpo.export.module import ExportedPolicy
from sb3_trpo.export.program import first_line, quiet_torch

OPSET = 18
"""Default version of the ONNX operators: the one in which torch writes them, and that runtimes have known since 2023."""

_OPSETS = Rule("an integer in 18 to 23", lambda v: is_integer(v, OPSET, 23))
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def check_extra() -> None:
    """
    Check that the packages of the extra ``export`` are installed.

    :raises ModuleNotFoundError: naming the missing packages and the command that installs them
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"the export to ONNX needs {' and '.join(missing)}: pip install 'sb3-trpo[export]'", name=missing[0]
        )


def check_opset(opset: int) -> None:
    """
    Check the version of the operators.

    :param opset: the version
    :raises ValueError: if torch cannot write it
    """
    check("opset", opset, _OPSETS)


def onnx_bytes(
    program: th.export.ExportedProgram, module: ExportedPolicy, metadata: dict[str, Any], opset: int = OPSET
) -> bytes:
    """
    Make the bytes of an ONNX file, with all weights in it.

    torch has two exporters. This is the newer one: it starts from the traced program, in which a branch that depends on the
    observations is an error. The older one (``dynamo=False``) is faster, but it follows the branch of its sample and silently
    leaves out the other one, and torch will remove it. Both export every policy of this package.

    :param program: the program
    :param module: the policy that it was traced from
    :param metadata: what the file tells about itself
    :param opset: version of the operators
    :return: the bytes
    :raises ExportError: if there is no ONNX operator for a part of the policy
    """
    names = [each.name for each in module.inputs]
    with quiet_torch():
        try:
            made = th.onnx.export(
                program,
                input_names=names,
                output_names=list(module.outputs),
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # torch wraps the errors of its passes in its own classes, which are not public
            cause = error.__cause__ or error
            raise ExportError(f"torch.onnx cannot export the policy: {first_line(cause)}") from error
    assert made is not None
    proto = made.model_proto
    _name_batch(proto)
    proto.producer_name, proto.producer_version = "sb3-trpo", metadata["sb3_trpo"]
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    serialized: bytes = proto.SerializeToString()
    return serialized


def _name_batch(proto: Any) -> None:
    """Name the dimension of the batch, for which torch writes a symbol of its own."""
    symbols = {part.type.tensor_type.shape.dim[0].dim_param for part in proto.graph.input}
    for part in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dimension in part.type.tensor_type.shape.dim:
            if dimension.dim_param in symbols:
                dimension.dim_param = "batch"


def run_onnx(made: bytes) -> Run:
    """
    Load an ONNX model.

    :param made: the bytes of its file
    :return: runs it on the CPU
    :raises ExportError: if the model is not valid, or onnxruntime lacks an operator
    """
    try:
        import_module("onnx").checker.check_model(made, full_check=True)
        session = import_module("onnxruntime").InferenceSession(made, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime documents no class of errors
        raise ExportError(f"onnxruntime cannot run the exported policy: {first_line(error)}") from error
    names = [each.name for each in session.get_inputs()]

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(names, values, strict=True)))
        return found

    return run
