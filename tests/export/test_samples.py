"""Random observations lie in their space, and near the statistics."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_trpo.export.inputs import NamedInput, Standardize
from sb3_trpo.export.samples import random_values
from tests.toy_envs import OBSERVATIONS

FARTHEST = float(np.finfo(np.float32).max)


def given(space: spaces.Space[Any], *steps: Any) -> NamedInput:
    return NamedInput("observation", "observations", None, space, steps)


@pytest.mark.parametrize("name", sorted(OBSERVATIONS.keys() - {"dict"}))
def test_values_lie_in_the_space(name: str) -> None:
    space = OBSERVATIONS[name]
    state = str(space.np_random.bit_generator.state)
    values = random_values(given(space), 20, np.random.default_rng(0))
    assert (values.shape, values.dtype) == ((20, *(space.shape or ())), space.dtype)
    assert all(space.contains(value.item() if space.shape == () else value) for value in values)
    assert len(np.unique(values.reshape(20, -1), axis=0)) > 1
    assert str(space.np_random.bit_generator.state) == state


def test_the_largest_number_is_no_bound() -> None:
    low, high = np.array([[-FARTHEST, -np.inf, 0.0], [FARTHEST, np.inf, np.inf]], dtype=np.float32)
    space = spaces.Box(low, high)
    values = random_values(given(space), 200, np.random.default_rng(0))
    assert np.abs(values).max() < 100.0
    assert values[:, 2].min() == 0.0


def test_half_of_the_values_lie_near_the_statistics() -> None:
    step = Standardize(np.array([1e6]), np.array([4.0]), 1e-8, 10.0)
    values = random_values(given(spaces.Box(-np.inf, np.inf, (1,)), step), 200, np.random.default_rng(0))
    assert np.abs(values[::2] - 1e6).max() < 40.0
    assert np.abs(values[1::2]).max() < 100.0
