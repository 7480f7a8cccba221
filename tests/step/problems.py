"""Linear systems with known solutions, shared by the tests of every step rule."""

import math
from typing import Any

import torch as th
from hypothesis import settings

from sb3_trpo.step.flat import flatten
from sb3_trpo.step.report import Trial

NAN, INF = math.nan, math.inf
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def random_spd(size: int, seed: int, smallest: float = 0.1, largest: float = 10.0) -> th.Tensor:
    """A symmetric matrix with eigenvalues spread evenly in the logarithm."""
    generator = th.Generator().manual_seed(seed)
    basis: th.Tensor = th.linalg.qr(th.randn(size, size, generator=generator, dtype=th.float64))[0]
    eigenvalues = th.logspace(math.log10(smallest), math.log10(largest), size, dtype=th.float64)
    return basis @ eigenvalues.diag() @ basis.T


def random_vector(size: int, seed: int) -> th.Tensor:
    return th.randn(size, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def vector(*values: float) -> th.Tensor:
    return th.tensor(values, dtype=th.float64)


def relative_residual(matrix: th.Tensor, solution: th.Tensor, b: th.Tensor) -> float:
    return float(th.linalg.vector_norm(b - matrix @ solution) / th.linalg.vector_norm(b))


def second_difference(size: int) -> th.Tensor:
    off = th.ones(size - 1, dtype=th.float64)
    return 2.0 * th.eye(size, dtype=th.float64) - off.diag(1) - off.diag(-1)


HILBERT = 1.0 / (th.arange(8, dtype=th.float64)[:, None] + th.arange(8, dtype=th.float64) + 1.0)
WELL_POSED = {
    "identity": th.eye(5, dtype=th.float64),
    "diagonal": vector(1.0, 2.0, 3.0, 4.0).diag(),
    "second_difference": second_difference(12),
    "random": random_spd(15, seed=0, smallest=0.5, largest=5.0),
    "one_by_one": vector(3.0).diag(),
    "tiny": 1e-12 * random_spd(6, seed=1),
    "huge": 1e12 * random_spd(6, seed=2),
}


class Quadratic:
    """
    L = gᵀd - bend/2 |d|² and D = 1/2 dᵀFd of the displacement d, in two tensors and in coordinates that are scaled.

    :param gradient: g, in the parameters
    :param fisher: F, in the parameters
    :param bend: curvature of L
    :param scale: a unit of the coordinates, in parameters
    """

    def __init__(self, gradient: th.Tensor, fisher: th.Tensor, bend: float = 0.0, scale: float = 1.0) -> None:
        self.start = random_vector(len(gradient), seed=5).to(gradient.dtype)
        half = (len(gradient) + 1) // 2
        self.parameters = [self.start[:half].clone(), self.start[half:].clone()]
        self.slope, self.fisher, self.bend, self.scale = gradient, fisher, bend, scale
        self.old = Trial(0.0, 0.0)
        self.spoil: Any = lambda trial: trial
        self.evaluations = 0

    @property
    def moved(self) -> th.Tensor:
        return flatten(self.parameters) - self.start

    def gradient(self) -> th.Tensor:
        assert not self.moved.any()
        return self.scale * self.slope

    def penalized_gradient(self, kl_coef: float) -> th.Tensor:
        moved = self.moved
        return self.scale * (self.slope - self.bend * moved - kl_coef * (self.fisher @ moved))

    def to_parameters(self, step: th.Tensor) -> th.Tensor:
        return self.scale * step

    def curvature(self, vector: th.Tensor) -> th.Tensor:
        assert not self.moved.any(), "F is that of θ_old"
        return self.scale**2 * (self.fisher @ vector)

    def independent_curvature(self, vector: th.Tensor) -> th.Tensor | None:
        return None

    def evaluate(self, max_kl: float = INF) -> Trial:
        self.evaluations += 1
        moved = self.moved
        gain = th.dot(self.slope, moved) - 0.5 * self.bend * th.dot(moved, moved)
        trial: Trial = self.spoil(Trial(gain.item(), 0.5 * th.dot(moved, self.fisher @ moved).item()))
        return trial


def rotated(*eigenvalues: float, seed: int = 6) -> th.Tensor:
    """A symmetric matrix with these eigenvalues, whose zeros are zeros only up to rounding."""
    size = len(eigenvalues)
    basis: th.Tensor = th.linalg.qr(th.randn(size, size, generator=th.Generator().manual_seed(seed), dtype=th.float64))[0]
    return basis @ vector(*eigenvalues).diag() @ basis.T
