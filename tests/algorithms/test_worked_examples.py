"""Examples small enough to work out on paper."""

import math

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.distributions.discrete import Categorical
from sb3_trpo.step.conjugate_gradient import CGOutcome, conjugate_gradient
from sb3_trpo.step.flat import dot, flatten, unflatten_like
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import actor_of, make_policy


def table(probabilities: list[list[float]]) -> ActorCriticPolicy:
    """A policy that holds one row of action probabilities for each state."""
    values = th.tensor(probabilities, dtype=th.float64)
    n_states, n_actions = values.shape
    policy = make_policy(spaces.Discrete(n_actions), observation_space=spaces.Discrete(n_states), net_arch=[])
    set_table(policy, values)
    return policy


def set_table(policy: ActorCriticPolicy, probabilities: th.Tensor) -> None:
    assert isinstance(policy.action_net, nn.Linear)
    with th.no_grad():
        policy.action_net.weight.copy_(probabilities.log().T)
        policy.action_net.bias.zero_()


def samples(states: list[int], actions: list[int], old_probability: list[float], advantages: list[float]) -> Batch:
    numbers = th.tensor([old_probability, advantages], dtype=th.float64)
    return Batch(States(th.tensor(states)[:, None]), th.tensor(actions), numbers[0].log(), numbers[1], th.zeros(len(states)))


OLD, NEW = [0.4, 0.3, 0.2, 0.1], [0.5, 0.2, 0.2, 0.1]
KL_OLD_NEW = 0.4 * math.log(4 / 5) + 0.3 * math.log(3 / 2)  # the other two terms are 0
KL_NEW_OLD = 0.5 * math.log(5 / 4) + 0.2 * math.log(2 / 3)


def test_kl_of_four_action_probabilities() -> None:
    old, new = ((th.tensor([row], dtype=th.float64).log(),) for row in (OLD, NEW))
    assert pytest.approx(0.0323821, abs=1e-7) == KL_OLD_NEW
    assert pytest.approx(0.0304788, abs=1e-7) == KL_NEW_OLD
    assert Categorical().kl_old_new(old, new).item() == pytest.approx(KL_OLD_NEW, rel=1e-12)
    assert Categorical().kl_old_new(new, old).item() == pytest.approx(KL_NEW_OLD, rel=1e-12)


def test_kl_of_the_same_probabilities_through_a_policy() -> None:
    policy = table([OLD, OLD])
    surrogate = Surrogate(actor_of(policy), samples([0, 1], [0, 1], [0.4, 0.3], [1.0, 1.0]), 0.0, 10)
    set_table(policy, th.tensor([NEW, OLD], dtype=th.float64))  # the second state keeps its row: the mean is half
    assert surrogate.evaluate().kl == pytest.approx(KL_OLD_NEW / 2.0, rel=1e-12)


def test_surrogate_of_two_samples() -> None:
    # ratios 0.3/0.2 and 0.6/0.5, advantages 5 and -1: 1.5 · 5 - 1.2 · 1 = 6.3
    policy = table([[0.3, 0.7], [0.6, 0.4]])
    batch = samples([0, 1], [0, 0], [0.2, 0.5], [5.0, -1.0])
    for chunk_size in (1, 2):
        surrogate = Surrogate(actor_of(policy), batch, 0.0, chunk_size).evaluate().surrogate
        assert surrogate == pytest.approx(3.15, rel=1e-12)
        assert surrogate * len(batch) == pytest.approx(6.3, rel=1e-12)


def test_gradient_of_two_samples() -> None:
    # dL/dlogit of the chosen action is ratio · advantage · (1 - probability) / 2, of the other one its opposite
    policy = table([[0.3, 0.7], [0.6, 0.4]])
    batch = samples([0, 1], [0, 0], [0.2, 0.5], [5.0, -1.0])
    gradient = Surrogate(actor_of(policy), batch, 0.0, 10).gradient(list(policy.action_net.parameters()))
    first, second = 7.5 * 0.7 / 2.0, -1.2 * 0.4 / 2.0
    weights, biases = [first, second, -first, -second], [first + second, -first - second]
    assert gradient.tolist() == pytest.approx(weights + biases, rel=1e-12)


def quadratic(x: th.Tensor, y: th.Tensor) -> th.Tensor:
    """f = θ₁² + 3 θ₁ θ₂ + 2 θ₂²."""
    return x**2 + 3.0 * x * y + 2.0 * y**2


def test_gradient_and_hessian_vector_products_of_a_quadratic() -> None:
    theta = [th.tensor(value, dtype=th.float64, requires_grad=True) for value in (1.0, 2.0)]
    gradients = th.autograd.grad(quadratic(*theta), theta, create_graph=True)
    gradient = flatten(gradients)
    assert gradient.tolist() == [8.0, 11.0]

    def hessian_vector_product(v: th.Tensor) -> th.Tensor:
        along = sum(g * part for g, part in zip(gradients, unflatten_like(theta, v), strict=True))
        assert isinstance(along, th.Tensor)
        return flatten(th.autograd.grad(along, theta, retain_graph=True))

    one, two = th.eye(2, dtype=th.float64)
    assert hessian_vector_product(one).tolist() == [2.0, 3.0]
    assert hessian_vector_product(two).tolist() == [3.0, 4.0]
    assert hessian_vector_product(gradient).tolist() == [49.0, 68.0]
    assert dot(gradient, hessian_vector_product(gradient)) == 1140.0

    # its determinant is -1: after a first step of 185/1140 along the gradient, conjugate gradient meets negative curvature
    result = conjugate_gradient(hessian_vector_product, gradient, 10, 1e-10)
    th.testing.assert_close(result.solution, 185.0 / 1140.0 * gradient)
    assert (result.iterations, result.outcome) == (2, CGOutcome.CURVATURE_LOST)
