"""Runs with known answers."""

import numpy as np

from benchmarks.common.runs import Curve


def runs(*scores: float) -> list[Curve]:
    """Make a run of one evaluation, after one step, one update and seven seconds, for each score."""
    return [Curve(np.array([1.0]), np.array([score]), np.array([7.0]), np.array([1.0])) for score in scores]
