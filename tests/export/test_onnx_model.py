"""The bytes of an ONNX model: the batch has a name, and what cannot be run is refused."""

import onnx
import pytest

from sb3_trpo.export.comparison import ExportError
from sb3_trpo.export.onnx_model import onnx_bytes, run_onnx
from sb3_trpo.export.program import traced_program
from tests.export.models import make_model
from tests.export.test_module import module_of

METADATA = {"sb3_trpo": "0.0", "inputs": ["observation"]}


def test_the_batch_has_a_name_everywhere() -> None:
    module = module_of(make_model(policy="PaperCnnPolicy", observations="image"))
    proto = onnx.load_from_string(onnx_bytes(traced_program(module), module, METADATA))
    parts = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    names = {dimension.dim_param for part in parts for dimension in part.type.tensor_type.shape.dim}
    assert names == {"", "batch"}  # the others are numbers
    assert (proto.producer_name, proto.producer_version) == ("sb3-trpo", "0.0")
    assert [(entry.key, entry.value) for entry in proto.metadata_props] == [("sb3_trpo", "0.0"), ("inputs", '["observation"]')]


def test_an_invalid_model_is_refused() -> None:
    with pytest.raises(ExportError, match="onnxruntime cannot run the exported policy: "):
        run_onnx(b"no model")
