"""
How good the conjugate gradient direction is at each tolerance: its cosine to the exact solution of the damped system.

Trains with the defaults on each environment and solves every update's system to each tolerance, as the defaults do
(``cg_tol=0.005`` and at most 15 products), and to convergence. Prints a Markdown table with the median and the worst cosine,
and the median number of Fisher-vector products::

    python -m benchmarks.cg_tolerance
"""

import argparse
import statistics
from typing import Any

import torch as th

import sb3_trpo.step.trust_region as trust_region
from sb3_trpo import TRPO

ENVS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "CartPole-v1")
LIMITS = {f"cg_tol {tol}": (100, tol) for tol in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)} | {"defaults": (15, 0.005)}
N_UPDATES = 30
SOLVER = trust_region.conjugate_gradient


def solutions(matvec: trust_region.MatVec, b: th.Tensor, smallest: float) -> list[tuple[float, int]]:
    """
    :param matvec: v -> A v
    :param b: right-hand side
    :param smallest: bound below the eigenvalues of A
    :return: cosine to the converged solution, and products, for each of the limits
    """

    def precise(vector: th.Tensor) -> th.Tensor:
        return matvec(vector.float()).double()

    exact = SOLVER(precise, b.double(), 300, 1e-5, smallest).solution
    found = [SOLVER(matvec, b, max_steps, tol, smallest) for max_steps, tol in LIMITS.values()]
    return [(th.nn.functional.cosine_similarity(cg.solution.double(), exact, dim=0).item(), cg.iterations) for cg in found]


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description="How good the conjugate gradient direction is at each tolerance.").parse_args()
    th.set_num_threads(1)
    print(f"| env | {' | '.join(LIMITS)} |")
    print("|---|" + "---|" * len(LIMITS))
    for env_id in ENVS:
        results: list[list[tuple[float, int]]] = []

        def watched(
            matvec: trust_region.MatVec, b: th.Tensor, max_steps: int, tol: float, smallest: float, results: Any = results
        ) -> trust_region.CGResult:
            results.append(solutions(matvec, b, smallest))
            return SOLVER(matvec, b, max_steps, tol, smallest)

        trust_region.conjugate_gradient = watched  # type: ignore[assignment]
        TRPO("MlpPolicy", env_id, seed=0, device="cpu").learn(2048 * N_UPDATES)
        trust_region.conjugate_gradient = SOLVER
        cells = []
        for column in zip(*results, strict=True):
            cosines, products = zip(*column, strict=True)
            cells.append(f"{statistics.median(cosines):.4f} / {min(cosines):.4f}; {statistics.median(products):.0f}")
        print(f"| {env_id} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
