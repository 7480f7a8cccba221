"""Writes a policy to a file for other programs, after a comparison with the model."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sb3_trpo.export.comparison import Comparison, Run
from sb3_trpo.export.further_inputs import inputs_of
from sb3_trpo.export.metadata import metadata_of
from sb3_trpo.export.module import ExportedPolicy, check_outputs
from sb3_trpo.export.onnx_model import OPSET, check_extra, check_opset, onnx_bytes, run_onnx
from sb3_trpo.export.preparation import Channels, Statistics, preparation_of
from sb3_trpo.export.program import program_bytes, run_program, traced_program
from sb3_trpo.rollout.collector import RolloutCollector
from sb3_trpo.saving.atomic import written_aside

ExportPath = str | os.PathLike[str]
"""The file to write; a suffix is added if there is none."""


class Choices(NamedTuple):
    """
    What to export.

    :param vec_normalize: statistics of the observations; "auto": those of the model's environment
    :param outputs: names of the outputs
    :param image_channels: where the images of the environment have their channels
    """

    vec_normalize: Statistics = "auto"
    outputs: Sequence[str] = ("action",)
    image_channels: Channels = None


def export_onnx(model: RolloutCollector, path: ExportPath, choices: Choices, opset: int = OPSET) -> Path:
    """
    Write a policy as an ONNX model.

    :param model: the model
    :param path: the file to write, to which ``.onnx`` is added unless it has a suffix
    :param choices: what to export
    :param opset: version of the ONNX operators
    :return: the path of the file
    :raises ModuleNotFoundError: if a package of the extra ``export`` is missing
    :raises ExportError: if the policy cannot be exported, or would not do what the model does; the old file is unchanged
    """
    check_extra()
    check_opset(opset)
    return _export(model, _with_suffix(path, ".onnx"), choices, partial(onnx_bytes, opset=opset), run_onnx)


def export_torch(model: RolloutCollector, path: ExportPath, choices: Choices) -> Path:
    """
    Write a policy as a program of ``torch.export``.

    :param model: the model
    :param path: the file to write, to which ``.pt2`` is added unless it has a suffix
    :param choices: what to export
    :return: the path of the file
    :raises ExportError: if the policy cannot be exported, or would not do what the model does; the old file is unchanged
    """
    return _export(model, _with_suffix(path, ".pt2"), choices, program_bytes, run_program)


def _export(
    model: RolloutCollector, path: Path, choices: Choices, make: Callable[..., bytes], load: Callable[[bytes], Run]
) -> Path:
    check_outputs(choices.outputs, model.policy)
    preparation = preparation_of(model, choices.vec_normalize, choices.image_channels)
    module = ExportedPolicy(model, inputs_of(model, preparation, choices.outputs), choices.outputs)
    metadata: dict[str, Any] = metadata_of(model, preparation, module)
    made = make(traced_program(module), module, metadata)
    Comparison(preparation, module).check(load(made))
    with written_aside(path) as file:
        file.write(made)
    return path


def _with_suffix(path: ExportPath, suffix: str) -> Path:
    path = Path(path)
    return path if path.suffix else path.with_name(path.name + suffix)
