"""
Measure how good the conjugate gradient direction is at each tolerance: its cosine to the exact solution of the damped system.

The script trains with sb3-contrib's defaults and a bound of 0.02 on each environment. It solves the system of every update to
each tolerance, to 0.005 with sb3-contrib's 15 products at most, and to convergence. It prints a Markdown table
with the median and the worst cosine, and the median number of Fisher-vector products::

    python -m benchmarks.cg_tolerance
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch as th

from benchmarks.common.patching import replaced
from benchmarks.common.tables import print_head, print_row
from sb3_trpo import SB3_CONTRIB_DEFAULTS, TRPO
from sb3_trpo.step.conjugate_gradient import CGResult, MatVec

ENVS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "CartPole-v1")
LIMITS = {f"cg_tol {tol}": (100, tol) for tol in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)}
LIMITS["cg_tol 0.005, 15 products"] = (15, 0.005)
N_UPDATES = 30
SOLVER = "sb3_trpo.step.conjugate_gradient.conjugate_gradient"
"""The function that every update calls; a run in which it is not called fails."""


def solutions(matvec: MatVec, b: th.Tensor, damping: float, solve: Callable[..., CGResult]) -> list[tuple[float, int]]:
    """
    Solve a system to each of the limits.

    :param matvec: v -> A v
    :param b: right-hand side
    :param damping: on the diagonal of A, a lower bound of its eigenvalues
    :param solve: the solver
    :return: cosine to the converged solution, and products, for each of :data:`LIMITS`
    """

    def precise(vector: th.Tensor) -> th.Tensor:
        return matvec(vector.float()).double()

    exact = solve(precise, b.double(), 300, 1e-5, damping).solution
    found = [solve(matvec, b, max_steps, tol, damping) for max_steps, tol in LIMITS.values()]
    return [(th.nn.functional.cosine_similarity(cg.solution.double(), exact, dim=0).item(), cg.iterations) for cg in found]


def train(env_id: str) -> list[list[tuple[float, int]]]:
    """
    Train and solve every update's system to each of the limits besides.

    :param env_id: environment id
    :return: the :func:`solutions` of every update
    :raises RuntimeError: if the updates did not call :data:`SOLVER`
    """
    results: list[list[tuple[float, int]]] = []

    def watched(solve: Callable[..., CGResult]) -> Callable[..., CGResult]:
        def solve_and_compare(matvec: MatVec, b: th.Tensor, max_steps: int, tol: float, damping: float = 0.0) -> CGResult:
            results.append(solutions(matvec, b, damping, solve))
            return solve(matvec, b, max_steps, tol, damping)

        return solve_and_compare

    with replaced(SOLVER, watched):
        model = TRPO("MlpPolicy", env_id, seed=0, device="cpu", **{**SB3_CONTRIB_DEFAULTS, "target_kl": 0.02})
        model.learn(2048 * N_UPDATES)
    if not results:
        raise RuntimeError(f"no update called `{SOLVER}`")
    return results


def main(arguments: list[str]) -> None:
    """Measure and print."""
    description = "How good the conjugate gradient direction is at each tolerance."
    argparse.ArgumentParser(description=description).parse_args(arguments)
    th.set_num_threads(1)
    print_head("env", *LIMITS)
    for env_id in ENVS:
        cells = []
        for column in zip(*train(env_id), strict=True):
            cosines, products = zip(*column, strict=True)
            cells.append(f"{statistics.median(cosines):.4f} / {min(cosines):.4f}; {statistics.median(products):.0f}")
        print_row(env_id, *cells)


if __name__ == "__main__":
    main(sys.argv[1:])
