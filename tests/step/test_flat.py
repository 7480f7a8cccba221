"""Tensors as one flat vector and back: same order, same bits, no aliasing."""

import math

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trpo.step.flat import assign, dot, flatten, unflatten_like
from tests.helpers import same_bits

SHAPES = [(), (3,), (2, 3), (2, 1, 2), (0,)]


def tensors(dtype: th.dtype = th.float64) -> list[th.Tensor]:
    generator = th.Generator().manual_seed(0)
    return [th.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]


def test_flatten_lists_the_values_in_order() -> None:
    values = flatten([th.tensor([[1.0, 2.0], [3.0, 4.0]]), th.tensor(5.0), th.tensor([6.0])])
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_assign_is_the_inverse_of_flatten_bit_for_bit(dtype: th.dtype) -> None:
    source = tensors(dtype)
    source[1] = th.tensor([math.nan, math.inf, -0.0], dtype=dtype)
    target = [th.full_like(tensor, 7.0) for tensor in source]
    assign(target, flatten(source))
    assert all(same_bits(a, b) for a, b in zip(target, source, strict=True))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True), min_size=6, max_size=6))
def test_any_float_survives_the_round_trip(values: list[float]) -> None:
    source = th.tensor(values, dtype=th.float32)
    target = [th.zeros(2, 2), th.zeros(()), th.zeros(1)]
    assign(target, flatten([source[:4].view(2, 2), source[4], source[5:]]))
    assert same_bits(flatten(target), source)


def test_flatten_copies_even_a_single_tensor() -> None:
    tensor = th.zeros(3)
    flat = flatten([tensor])
    tensor += 1.0
    assert flat.tolist() == [0.0, 0.0, 0.0]


def test_flatten_has_no_graph() -> None:
    assert not flatten([th.ones(2, requires_grad=True) * 2.0]).requires_grad


def test_assign_writes_leaves_that_require_a_gradient_in_place() -> None:
    parameter = th.nn.Parameter(th.zeros(2))
    address = parameter.data_ptr()
    assign([parameter], th.tensor([1.0, 2.0]))
    assert parameter.tolist() == [1.0, 2.0]
    assert parameter.data_ptr() == address
    assert parameter.requires_grad


def test_tensors_that_are_not_contiguous_keep_their_order() -> None:
    original = th.arange(6.0).view(2, 3).t()
    target = th.empty(2, 3).t()
    assign([target], flatten([original]))
    assert th.equal(target, original)


def test_unflatten_like_gives_views_of_the_vector() -> None:
    like = tensors()
    vector = flatten(like)
    parts = unflatten_like(like, vector)
    assert all(th.equal(part, tensor) for part, tensor in zip(parts, like, strict=True))
    vector.zero_()
    assert all(not part.any() for part in parts)


@pytest.mark.parametrize("size", [2, 4])
def test_a_vector_of_the_wrong_length_is_refused(size: int) -> None:
    target = [th.zeros(2), th.zeros(1)]
    with pytest.raises(RuntimeError, match="split"):
        assign(target, th.ones(size))
    assert not flatten(target).any()


def test_dot_accumulates_in_float64() -> None:
    # in float32 the ones are lost beside 2²⁵
    a = th.tensor([2.0**25, 1.0, 1.0, -(2.0**25)])
    assert dot(a, th.ones(4)) == 2.0
    # and 1e30 squared overflows
    assert math.isclose(dot(th.tensor([1e30]), th.tensor([1e30])), 1e60, rel_tol=1e-6)
