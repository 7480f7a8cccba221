"""Packing sorts steps by time and sequences by length, and can be undone."""

import numpy as np
import pytest

from sb3_trpo.actor.packing import Packing


def test_places_worked_out_by_hand() -> None:
    packing = Packing.of(np.array([1, 3, 2]))
    assert packing.order.tolist() == [1, 2, 0]
    assert packing.edges == [0, 3, 5, 6]  # three first steps, two second ones, one third
    rows = np.array([[0.0], [10.0], [11.0], [12.0], [20.0], [21.0]])
    assert packing.pack(rows).flatten().tolist() == [10.0, 20.0, 0.0, 11.0, 21.0, 12.0]
    assert packing.pack(rows)[packing.last].flatten().tolist() == [12.0, 21.0, 0.0]
    shifted = packing.previous(np.array([[-1.0], [-2.0], [-3.0]]), packing.pack(rows))
    assert shifted.flatten().tolist() == [-1.0, -2.0, -3.0, 10.0, 20.0, 11.0]


@pytest.mark.parametrize("seed", range(5))
def test_unpacking_undoes_packing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=rng.integers(1, 12))
    rows = rng.normal(size=(lengths.sum(), 2))
    packing = Packing.of(lengths)
    np.testing.assert_array_equal(packing.unpack(packing.pack(rows)), rows)
    assert packing.edges[-1] == len(rows)
    assert (np.diff(packing.edges) > 0).all()
