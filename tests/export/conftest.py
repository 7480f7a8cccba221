"""torch reads its table of ONNX operators anew for each export, half of whose time that is: here it is read once."""

from collections.abc import Iterator
from functools import cache

import pytest
from torch.onnx._internal.exporter import _registration


@pytest.fixture(scope="session", autouse=True)
def one_table() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _registration.ONNXRegistry, "from_torchlib", staticmethod(cache(_registration.ONNXRegistry.from_torchlib))
        )
        yield
