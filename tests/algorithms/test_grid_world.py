"""Small worlds solved exactly by linear algebra: the true policy gradient, the return, and the paper's bound."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.distributions.table import distribution_family
from sb3_trpo.step.report import Outcome, StepReport
from sb3_trpo.step.trust_region import TrustRegionSettings, trust_region_step
from sb3_trpo.update.policy_problem import PolicyProblem
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import DoubleFlatten, actor_of, make_policy, reached

GAMMA = 0.9


@dataclass(frozen=True)
class World:
    """
    A Markov decision process with S states and A actions.

    :param transitions: probabilities, shape (S, A, S)
    :param rewards: shape (S, A)
    :param start: distribution of the first state, shape (S,)
    """

    transitions: np.ndarray
    rewards: np.ndarray
    start: np.ndarray

    def solve(self, policy: np.ndarray) -> "Solution":
        """Return, advantages and visits of a policy, shape (S, A), by linear algebra."""
        states = np.eye(len(self.start))
        moves = np.einsum("sa,sat->st", policy, self.transitions)
        values = np.linalg.solve(states - GAMMA * moves, (policy * self.rewards).sum(axis=1))
        advantages = self.rewards + GAMMA * self.transitions @ values - values[:, None]
        visits = np.linalg.solve(states - GAMMA * moves.T, self.start)
        return Solution(float(self.start @ values), advantages, visits)

    def best_return(self) -> float:
        values = np.zeros(len(self.start))
        for _ in range(500):
            values = (self.rewards + GAMMA * self.transitions @ values).max(axis=1)
        return float(self.start @ values)


@dataclass(frozen=True)
class Solution:
    """
    Holds the exact solution of a policy.

    :param value: the expected discounted return η
    :param advantages: A(s, a), shape (S, A)
    :param visits: discounted visits ρ(s), not normalised, shape (S,)
    """

    value: float
    advantages: np.ndarray
    visits: np.ndarray


def grid() -> World:
    """3 x 3 cells, moves that slip to the side one time in five, +1 for entering the last corner, -1 for the centre."""
    transitions, rewards = np.zeros((9, 4, 9)), np.zeros((9, 4))
    goal, pit = 8, 4
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for cell in range(9):
        for action in range(4):
            for turn, probability in ((0, 0.8), (1, 0.1), (-1, 0.1)):
                down, right = steps[(action + turn) % 4]
                row, column = np.clip([cell // 3 + down, cell % 3 + right], 0, 2)
                target = cell if cell == goal else int(3 * row + column)  # the goal is never left
                transitions[cell, action, target] += probability
                if target != cell:
                    rewards[cell, action] += probability * ((target == goal) - 1.0 * (target == pit))
    return World(transitions, rewards, np.eye(9)[0])


def chain() -> World:
    """Five states in a row: a small reward at the near end, a large one at the far end, against the current."""
    transitions, rewards = np.zeros((5, 2, 5)), np.zeros((5, 2))
    for state in range(5):
        transitions[state, 0, max(state - 1, 0)] = 1.0
        transitions[state, 1, min(state + 1, 4)] += 0.6
        transitions[state, 1, max(state - 1, 0)] += 0.4
    rewards[0, 0], rewards[4, 1] = 0.05, 1.0
    return World(transitions, rewards, np.full(5, 0.2))


WORLDS = {"grid": grid(), "chain": chain()}


class FewFeatures(DoubleFlatten):
    """Three fixed features of the state, so that states share what they learn."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        generator = th.Generator().manual_seed(0)
        self.register_buffer("features", th.randn(self.features_dim, 3, generator=generator, dtype=th.float64))
        self._features_dim = 3

    def forward(self, observations: th.Tensor) -> th.Tensor:
        assert isinstance(self.features, th.Tensor)
        return super().forward(observations) @ self.features


EXTRACTORS = {"tabular": DoubleFlatten, "few_features": FewFeatures}


def softmax_policy(world: World, extractor: str) -> ActorCriticPolicy:
    n_states, n_actions = world.rewards.shape
    return make_policy(
        spaces.Discrete(n_actions),
        observation_space=spaces.Discrete(n_states),
        features_extractor_class=EXTRACTORS[extractor],
        net_arch=[],
    )


def log_probabilities(policy: ActorCriticPolicy, world: World) -> th.Tensor:
    states = th.arange(len(world.start))[:, None]
    with th.no_grad():
        distribution = policy.get_distribution(states)
    (logits,) = distribution_family(distribution).parameters(distribution, states)
    return logits


def probabilities(policy: ActorCriticPolicy, world: World) -> np.ndarray:
    return log_probabilities(policy, world).exp().numpy()


def exact_batch(policy: ActorCriticPolicy, world: World, solution: Solution) -> Batch:
    """
    Every state with every action, the states about as often as they are visited.

    The advantages are scaled so that the surrogate is exactly Σ ρ(s) π_θ(a|s) A(s, a): times ρ(s) π(a|s) over the share
    of the batch that the pair makes up.
    """
    n_states, n_actions = world.rewards.shape
    copies = np.maximum(1, np.rint(40.0 * solution.visits / solution.visits.sum())).astype(int)
    states = np.repeat(np.arange(n_states), copies * n_actions)
    actions = np.concatenate([np.tile(np.arange(n_actions), count) for count in copies])
    old = log_probabilities(policy, world)
    weight = solution.visits[:, None] * old.exp().numpy() * solution.advantages / copies[:, None] * len(states)
    return Batch(
        States(th.from_numpy(states)[:, None]),
        th.from_numpy(actions),
        old[states, actions],
        th.from_numpy(weight[states, actions]),
        th.zeros(len(states), dtype=th.float64),
    )


@dataclass(frozen=True)
class Update:
    """Return before and after one update, the surrogate's gain, and the worst state's KL(old‖new)."""

    before: Solution
    after: Solution
    report: StepReport
    max_kl: float


def update(policy: ActorCriticPolicy, world: World, max_kl: float) -> Update:
    """One trust-region step on exact advantages, with the package's own parts."""
    before = world.solve(probabilities(policy, world))
    old = log_probabilities(policy, world)
    batch = exact_batch(policy, world, before)
    parameters = reached(policy, batch)
    problem = PolicyProblem(actor_of(policy), parameters, batch, ent_coef=0.0, chunk_size=50)
    settings = TrustRegionSettings(
        max_kl, 0.0, cg_max_steps=200, cg_tol=1e-12, shrinking_factor=0.8, max_iter=30, accept_ratio=0.0
    )
    report = trust_region_step(problem, settings)
    new = log_probabilities(policy, world)
    per_state = (old.exp() * (old - new)).sum(dim=1)
    return Update(before, world.solve(probabilities(policy, world)), report, per_state.max().item())


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("name", WORLDS)
def test_the_surrogates_gradient_is_that_of_the_return(name: str, extractor: str) -> None:
    world = WORLDS[name]
    policy = softmax_policy(world, extractor)
    batch = exact_batch(policy, world, world.solve(probabilities(policy, world)))
    parameters = reached(policy, batch)
    gradient = Surrogate(actor_of(policy), batch, 0.0, 1000).gradient(parameters)
    differences = []
    width = 1e-5
    with th.no_grad():
        for element in (element for parameter in parameters for element in parameter.view(-1)):
            returns = []
            for change in (width, -2.0 * width):
                element += change
                returns.append(world.solve(probabilities(policy, world)).value)
            element += width
            differences.append((returns[0] - returns[1]) / (2.0 * width))
    th.testing.assert_close(gradient, th.tensor(differences, dtype=th.float64), rtol=1e-6, atol=1e-8)
    assert gradient.abs().max() > 1e-2


@pytest.mark.parametrize("name", WORLDS)
def test_the_surrogate_is_the_exact_sum_over_states_and_actions(name: str) -> None:
    world = WORLDS[name]
    policy = softmax_policy(world, "tabular")
    step = update(policy, world, max_kl=0.01)
    expected = (step.before.visits[:, None] * probabilities(policy, world) * step.before.advantages).sum()
    assert step.report.surrogate == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("max_kl", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("name", WORLDS)
def test_the_return_of_a_tabular_policy_never_falls(name: str, max_kl: float) -> None:
    # in a tabular softmax policy the natural gradient adds a multiple of A(s, ·) to the logits of every state, so for any
    # length of the step no state's surrogate falls, and neither does the return
    world = WORLDS[name]
    policy = softmax_policy(world, "tabular")
    best = world.best_return()
    for _ in range(30):
        step = update(policy, world, max_kl)
        assert step.report.outcome is Outcome.ACCEPTED
        assert 0.0 < step.report.kl <= max_kl
        assert step.after.value > step.before.value
        if step.after.value > best - 1e-3:
            break
    assert max_kl < 1e-2 or step.after.value > best - 1e-3


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("max_kl", [1e-8, 1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("name", WORLDS)
def test_the_return_keeps_the_bound_of_the_papers_first_theorem(name: str, max_kl: float, extractor: str) -> None:
    world = WORLDS[name]
    policy = softmax_policy(world, extractor)
    for _ in range(12):
        step = update(policy, world, max_kl)
        penalty = 4.0 * np.abs(step.before.advantages).max() * GAMMA / (1.0 - GAMMA) ** 2
        bound = step.before.value + step.report.surrogate - penalty * step.max_kl
        assert step.after.value >= bound - 1e-12
        if max_kl == 1e-8:  # for so short a step the theorem itself promises an improvement
            assert bound > step.before.value
