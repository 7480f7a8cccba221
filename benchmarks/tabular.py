"""
Solve TRPO's problem exactly on small tabular problems: the penalty of the theory, a bound on the largest KL, and on the mean.

The theory behind TRPO says that η(π̃) >= L(π̃) - C max_s KL(π‖π̃)(s), with C = 4 ε γ / (1 - γ)² and ε = max |A|. Policy iteration
that maximises the right side (Algorithm 1 of the paper) therefore never lowers the return η, but its steps are tiny. TRPO
bounds the KL instead, and bounds its mean over the states that the policy visits. Here all three are solved without sampling
and without a network, so that nothing but the rule differs::

    python -m benchmarks.tabular --out docs/img/tabular.png

Source: sections 2 to 4 of the paper (https://arxiv.org/abs/1502.05477).
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr  # type: ignore[import-untyped]

from benchmarks.common.command_line import count
from benchmarks.common.paths import PICTURES
from benchmarks.common.picture import picture
from benchmarks.common.tables import print_head, print_row

_BISECTIONS = 60
_LEAST_PROBABILITY = 1e-300
"""Probability that an action keeps, because no logarithm of 0 is finite."""
_RANGE = 60.0
"""Range of the numbers that are searched, both ways, in the logarithm."""
_LEAST_SPREAD = 1e-12
"""Difference of the advantages of a state below which no action is better."""


@dataclass(frozen=True)
class Problem:
    """
    A finite Markov decision problem with S states, O observations and A actions. A policy sees only the observation.

    :param transitions: P(s'|s, a), shape (S, A, S)
    :param rewards: mean rewards, shape (S, A)
    :param start: distribution of the first state, shape (S,)
    :param observations: the observation of each state, from 0 to O - 1, shape (S,)
    :param gamma: discount factor
    """

    transitions: np.ndarray
    rewards: np.ndarray
    start: np.ndarray
    observations: np.ndarray
    gamma: float


class Solution(NamedTuple):
    """
    The exact values of a policy π.

    :param eta: η(π), the expected discounted return
    :param visits: ρ(o) = Σ_t γ^t P(o_t = o), shape (O,); it sums to 1 / (1 - γ)
    :param advantages: mean of A(s, a) over the visits to an observation, shape (O, A)
    :param largest: ε, the largest |A(s, a)|
    """

    eta: float
    visits: np.ndarray
    advantages: np.ndarray
    largest: float


def solve(problem: Problem, policy: np.ndarray) -> Solution:
    """
    Evaluate a policy by linear equations.

    :param problem: the problem
    :param policy: π(a|o), shape (O, A)
    :return: its exact values
    """
    in_states = policy[problem.observations]
    moves = np.einsum("sa,sat->st", in_states, problem.transitions)
    system = np.eye(len(moves)) - problem.gamma * moves
    values = np.linalg.solve(system, (in_states * problem.rewards).sum(axis=1))
    visits = np.linalg.solve(system.T, problem.start)
    advantages = problem.rewards + problem.gamma * problem.transitions @ values - values[:, None]
    members = np.eye(len(policy))[problem.observations].T  # shape (O, S)
    seen = members @ visits
    means = (members * visits) @ advantages / seen[:, None]
    return Solution(float(problem.start @ values), seen, means, float(np.abs(advantages).max()))


def kl(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """
    Compute KL(old‖new) at every observation.

    :param old: shape (O, A)
    :param new: shape (O, A)
    :return: shape (O,), nats
    """
    divergence: np.ndarray = rel_entr(old, new).sum(axis=1)
    return divergence


def penalty_of_the_theory(problem: Problem, solution: Solution) -> float:
    """
    Compute C = 4 ε γ / (1 - γ)².

    :param problem: the problem
    :param solution: values of the old policy
    :return: C
    """
    return float(4.0 * solution.largest * problem.gamma / (1.0 - problem.gamma) ** 2)


def lower_bound(problem: Problem, old: np.ndarray, new: np.ndarray) -> float:
    """
    Compute L(π̃) - C max_o KL(π‖π̃)(o), below which η(π̃) cannot be.

    :param problem: the problem
    :param old: π, shape (O, A)
    :param new: π̃, shape (O, A)
    :return: the bound
    """
    solution = solve(problem, old)
    surrogate = solution.eta + solution.visits @ (new * solution.advantages).sum(axis=1)
    return float(surrogate - penalty_of_the_theory(problem, solution) * kl(old, new).max())


def tilted(policy: np.ndarray, advantages: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the π̃ that maximises Σ_a π̃ A - ν KL(π‖π̃) at every observation, for the ν that belongs to a number e.

    The maximum is π̃ = ν π / (μ - A) with μ = max A + e; it sums to 1 if ν = 1 / Σ_a π / (μ - A). The smaller e, the farther
    π̃ moves towards the best action.

    :param policy: π, shape (O, A), all above 0
    :param advantages: A, shape (O, A)
    :param excess: e, above 0, shape (O,)
    :return: π̃, shape (O, A), and ν, shape (O,)
    """
    quotients = policy / (advantages.max(axis=1, keepdims=True) - advantages + excess[:, None])
    coefs = 1.0 / quotients.sum(axis=1)
    return np.maximum(coefs[:, None] * quotients, _LEAST_PROBABILITY), coefs


def with_kl(policy: np.ndarray, advantages: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the π̃ of :func:`tilted` whose KL is the bound at every observation where the advantages differ.

    :param policy: π, shape (O, A)
    :param advantages: A, shape (O, A)
    :param bound: nats, above 0
    :return: π̃, shape (O, A), and ν, shape (O,)
    """
    beyond = _bisected(lambda excess: kl(policy, tilted(policy, advantages, excess)[0]) > bound, advantages)
    return tilted(policy, advantages, beyond)


def with_coef(policy: np.ndarray, advantages: np.ndarray, coef: float) -> np.ndarray:
    """
    Find the π̃ of :func:`tilted` for one ν at all observations.

    :param policy: π, shape (O, A)
    :param advantages: A, shape (O, A)
    :param coef: ν, above 0
    :return: π̃, shape (O, A)
    """
    excess = _bisected(lambda excess: tilted(policy, advantages, excess)[1] < coef, advantages)
    return tilted(policy, advantages, excess)[0]


def _bisected(too_small: Callable[[np.ndarray], np.ndarray], advantages: np.ndarray) -> np.ndarray:
    """Find the e of every observation at which a condition ends to hold."""
    spread = np.log(np.maximum(np.ptp(advantages, axis=1), _LEAST_SPREAD))
    low, high = spread - _RANGE, spread + _RANGE
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        below = too_small(np.exp(middle))
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    result: np.ndarray = np.exp(high)
    return result


def bisect(increases: Callable[[float], bool], low: float, high: float) -> float:
    """
    Find the number above which a condition no longer holds, in the logarithm.

    :param increases: the condition
    :param low: where it holds, above 0
    :param high: where it does not hold
    :return: the number
    """
    for _ in range(_BISECTIONS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if increases(middle) else (low, middle)
    return high


def maximise_with_penalty(problem: Problem, policy: np.ndarray) -> np.ndarray:
    """
    Take a step of Algorithm 1: maximise L(π̃) - C max_o KL(π‖π̃)(o) exactly.

    For a given largest KL κ, every observation uses all of it; κ grows until the gain Σ_o ρ(o) ν_o per nat falls to C.

    :param problem: the problem
    :param policy: π, shape (O, A)
    :return: π̃, shape (O, A)
    """
    solution = solve(problem, policy)
    penalty = penalty_of_the_theory(problem, solution)

    def gains(largest: float) -> bool:
        return float(solution.visits @ with_kl(policy, solution.advantages, largest)[1]) > penalty

    return bounded_everywhere(problem, policy, bisect(gains, 1e-14, 10.0))


def bounded_everywhere(problem: Problem, policy: np.ndarray, bound: float) -> np.ndarray:
    """
    Maximise L(π̃) where max_o KL(π‖π̃)(o) <= bound.

    :param problem: the problem
    :param policy: π, shape (O, A)
    :param bound: nats
    :return: π̃, shape (O, A)
    """
    return with_kl(policy, solve(problem, policy).advantages, bound)[0]


def bounded_on_average(problem: Problem, policy: np.ndarray, bound: float) -> np.ndarray:
    """
    Maximise L(π̃) where the mean of KL(π‖π̃)(o) over the visits is at most the bound, as TRPO does.

    All observations share one ν, so that those with large advantages move farthest.

    :param problem: the problem
    :param policy: π, shape (O, A)
    :param bound: nats
    :return: π̃, shape (O, A)
    """
    solution = solve(problem, policy)
    weights = solution.visits / solution.visits.sum()

    def step(coef: float) -> np.ndarray:
        return with_coef(policy, solution.advantages, coef)

    return step(bisect(lambda coef: float(weights @ kl(policy, step(coef))) > bound, 1e-9, 1e9))


def chain(n_states: int = 6, gamma: float = 0.9) -> Problem:
    """
    Make a chain whose current pushes to the left: little reward at the left end, much at the right end.

    :param n_states: length of the chain
    :param gamma: discount factor
    :return: the problem, whose observations are the states
    """
    transitions = np.zeros((n_states, 2, n_states))
    for state in range(n_states):
        left, right = max(state - 1, 0), min(state + 1, n_states - 1)
        transitions[state, 0, left] = 1.0
        for goal, probability in ((right, 0.6), (state, 0.3), (left, 0.1)):
            transitions[state, 1, goal] += probability
    rewards = np.zeros((n_states, 2))
    rewards[0, 0], rewards[-1, 1] = 0.05, 1.0
    return Problem(transitions, rewards, np.eye(n_states)[1], np.arange(n_states), gamma)


def random_problem(n_states: int = 8, n_observations: int = 8, gamma: float = 0.5, seed: int = 0) -> Problem:
    """
    Draw a problem with three actions, each of which leads to two states.

    :param n_states: S
    :param n_observations: O; states are dealt to them in turn
    :param gamma: discount factor
    :param seed: of the draw
    :return: the problem
    """
    rng, n_actions = np.random.default_rng(seed), 3
    transitions = np.zeros((n_states, n_actions, n_states))
    for state, action in np.ndindex(n_states, n_actions):
        transitions[state, action, rng.choice(n_states, 2, replace=False)] = rng.dirichlet([1.0, 1.0])
    rewards, start = rng.uniform(size=(n_states, n_actions)), np.full(n_states, 1.0 / n_states)
    return Problem(transitions, rewards, start, np.arange(n_states) % n_observations, gamma)


class Iteration(NamedTuple):
    """
    The returns along an iteration.

    :param etas: η of each policy, shape (n + 1,)
    :param bounds: lower bound on η of each policy but the first, shape (n,)
    :param largest: largest KL of an observation in each step, nats, shape (n,)
    """

    etas: np.ndarray
    bounds: np.ndarray
    largest: np.ndarray

    @property
    def falls(self) -> int:
        """Count the steps that lowered the return by more than rounding."""
        return int((np.diff(self.etas) < -1e-12).sum())


Step = Callable[[Problem, np.ndarray], np.ndarray]


def iterate(problem: Problem, step: Step, n_steps: int) -> Iteration:
    """
    Start from the uniform policy and take steps.

    :param problem: the problem
    :param step: maps the problem and π to π̃
    :param n_steps: number of steps
    :return: the returns
    """
    shape = problem.observations.max() + 1, problem.rewards.shape[1]
    policy = np.full(shape, 1.0 / shape[1])
    etas, bounds, largest = [solve(problem, policy).eta], [], []
    for _ in range(n_steps):
        new = step(problem, policy)
        bounds.append(lower_bound(problem, policy, new))
        largest.append(kl(policy, new).max())
        etas.append(solve(problem, new).eta)
        policy = new
    return Iteration(np.array(etas), np.array(bounds), np.array(largest))


BOUND = 0.03
"""δ of both trust regions, nats."""

PROBLEMS = {
    "chain, discount 0.9": chain(),
    "random, discount 0.5": random_problem(),
    "random, states look alike in pairs": random_problem(n_observations=4, gamma=0.9, seed=2),
}
RULES: dict[str, Step] = {
    "penalty C·max KL": maximise_with_penalty,
    f"max KL ≤ {BOUND}": lambda problem, policy: bounded_everywhere(problem, policy, BOUND),
    f"mean KL ≤ {BOUND}": lambda problem, policy: bounded_on_average(problem, policy, BOUND),
}


def draw(path: Path, results: dict[str, dict[str, Iteration]]) -> None:
    """
    Draw return, promised and real change, and largest KL by step, a row for each problem.

    :param path: the picture to write
    :param results: problem -> rule -> its iteration
    """
    with picture(path, 130, nrows=len(results), ncols=3, figsize=(9.5, 2.9 * len(results)), squeeze=False) as (figure, axes):
        for (title, rules), row in zip(results.items(), axes, strict=True):
            for i, (label, found) in enumerate(rules.items()):
                steps = np.arange(1, len(found.bounds) + 1)
                row[0].plot(found.etas, color=f"C{i}", label=label)
                row[1].plot(steps, np.diff(found.etas), color=f"C{i}")
                row[1].plot(steps, found.bounds - found.etas[:-1], ":", color=f"C{i}")
                row[2].plot(steps, found.largest, color=f"C{i}")
            row[1].set_yscale("symlog", linthresh=1e-3)
            row[2].set_yscale("log")
            row[2].set_ylim(1e-6, 10.0)  # it falls without limit once nothing is left to gain
            row[0].set(title=title, ylabel="return η")
            row[1].set(title="change of η\n(dotted: its lower bound)")
            row[2].set(title="largest KL of\nan observation, nats")
            for axis in row:
                axis.set_xlabel("step")
                axis.grid(alpha=0.3)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="TRPO's theory on tabular problems, exactly.")
    parser.add_argument("--out", type=Path, default=PICTURES / "tabular.png", help="the picture to write")
    parser.add_argument("--steps", type=count, default=40, help="steps of each rule")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Print a table and draw the picture."""
    options = parse(arguments)
    print_head("problem", "rule", "η at first", "at last", "steps that lowered η", "lowest bound on a change")
    results: dict[str, dict[str, Iteration]] = {}
    for title, problem in PROBLEMS.items():
        for label, step in RULES.items():
            found = iterate(problem, step, options.steps)
            results.setdefault(title, {})[label] = found
            lowest = (found.bounds - found.etas[:-1]).min()
            numbers = (f"{number:.3f}" for number in (found.etas[0], found.etas[-1]))
            print_row(title, label, *numbers, f"{found.falls} of {options.steps}", f"{lowest:.2g}")
    draw(options.out, results)


if __name__ == "__main__":
    main(sys.argv[1:])
