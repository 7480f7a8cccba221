"""The Fisher-vector product against explicit matrices: Jᵀ M J, and the Hessian of the mean KL by double backward."""

from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.subsets import fisher_subsets
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.update.fisher import FisherVectorProduct
from tests.helpers import (
    ACTORS,
    DoubleEncoder,
    DoubleFlatten,
    actor_of,
    actor_parameters,
    generator_states,
    jacobian,
    make_batch,
    make_policy,
    matrix_of,
    torch_distributions,
    torch_kl,
)

EXTRACTORS: dict[str, dict[str, Any]] = {
    "mlp": {"features_extractor_class": DoubleFlatten},
    "shared_extractor": {"features_extractor_class": DoubleEncoder},
    "separate_extractors": {"features_extractor_class": DoubleEncoder, "share_features_extractor": False},
}


def fisher_parameters(policy: ActorCriticPolicy) -> list[nn.Parameter]:
    return [p for name, p in policy.named_parameters() if "value" not in name and "vf_features" not in name]


def fisher_matrix(policy: ActorCriticPolicy, batch: Batch, chunk_size: int = 100) -> th.Tensor:
    parameters = fisher_parameters(policy)
    product = FisherVectorProduct(actor_of(policy), parameters, batch, chunk_size)
    return matrix_of(product, sum(parameter.numel() for parameter in parameters))


def gauss_newton(policy: ActorCriticPolicy, batch: Batch) -> th.Tensor:
    """Mean over states of Jᵀ M J, one state at a time, with the textbook Fisher matrix M of each distribution."""
    parameters = fisher_parameters(policy)
    terms = []
    for state in batch.chunks(1):
        distribution = policy.get_distribution(state.states.observations)
        for part in torch_distributions(distribution):
            if isinstance(part, th.distributions.Normal):
                outputs, metric = (
                    th.cat([part.loc, part.scale]),
                    th.cat([part.scale**-2, 2.0 * part.scale**-2]).flatten().diag(),
                )
            elif isinstance(part, th.distributions.Categorical):
                outputs, metric = part.logits, part.probs[0].diag() - th.outer(part.probs[0], part.probs[0])
            elif isinstance(part, th.distributions.Bernoulli):
                outputs, metric = part.logits, (part.probs * (1.0 - part.probs))[0].diag()
            else:
                outputs, metric = distribution.log_prob(state.actions), th.ones(1, 1, dtype=th.float64)
            derivative = jacobian(outputs, parameters)
            terms.append(derivative.T @ metric @ derivative)
    return th.stack(terms).sum(dim=0).detach() / len(batch)


def hessian_of_mean_kl(policy: ActorCriticPolicy, batch: Batch) -> th.Tensor:
    """By double backward, from torch's own KL; for a distribution without one, from the estimate r - 1 - log r."""
    parameters = fisher_parameters(policy)
    with th.no_grad():
        old = policy.get_distribution(batch.states.observations)
        old_parts, old_log_prob = torch_distributions(old), old.log_prob(batch.actions)
    new = policy.get_distribution(batch.states.observations)
    if isinstance(old_parts[0], th.distributions.StudentT):
        log_ratio = new.log_prob(batch.actions) - old_log_prob
        mean_kl = (log_ratio.exp() - 1.0 - log_ratio).mean()
    else:
        mean_kl = torch_kl(old_parts, torch_distributions(new)).mean()
    gradient = jacobian(mean_kl, parameters)[0]
    return jacobian(gradient, parameters).detach()


@pytest.mark.parametrize("actor", ACTORS)
def test_is_the_explicit_gauss_newton_matrix(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy)
    th.testing.assert_close(fisher_matrix(policy, batch), gauss_newton(policy, batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("actor", ACTORS)
def test_is_the_hessian_of_the_mean_kl(actor: str, extractor: str) -> None:
    policy = make_policy(**ACTORS[actor], **EXTRACTORS[extractor])
    batch = make_batch(policy)
    th.testing.assert_close(fisher_matrix(policy, batch), hessian_of_mean_kl(policy, batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("actor", ACTORS)
def test_is_symmetric_and_positive_semi_definite_and_not_zero(actor: str) -> None:
    policy = make_policy(**ACTORS[actor])
    matrix = fisher_matrix(policy, make_batch(policy))
    th.testing.assert_close(matrix, matrix.T, rtol=1e-10, atol=1e-13)
    eigenvalues = th.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-12
    assert eigenvalues.max() > 1e-3


def test_gaussian_head_has_its_closed_form() -> None:
    # mean = bias, std = exp(log_std): the Fisher matrix of (bias, log_std) is diag(1/σ², 2)
    policy = make_policy()
    with th.no_grad():
        policy.log_std.copy_(th.tensor([0.0, np.log(2.0)]))
    assert isinstance(policy.action_net, nn.Linear)
    product = FisherVectorProduct(actor_of(policy), [policy.action_net.bias, policy.log_std], make_batch(policy), 100)
    th.testing.assert_close(matrix_of(product, 4), th.tensor([1.0, 0.25, 2.0, 2.0], dtype=th.float64).diag())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(actor=st.sampled_from(list(ACTORS)), n_states=st.integers(1, 7), chunk_size=st.integers(1, 8))
def test_chunks_change_nothing(actor: str, n_states: int, chunk_size: int) -> None:
    policy = make_policy(**ACTORS[actor])
    batch = make_batch(policy, n_states)
    parameters = actor_parameters(policy)
    vector = th.ones(sum(parameter.numel() for parameter in parameters), dtype=th.float64)
    whole = FisherVectorProduct(actor_of(policy), parameters, batch, n_states)(vector)
    th.testing.assert_close(
        FisherVectorProduct(actor_of(policy), parameters, batch, chunk_size)(vector), whole, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_states_by_their_positions_are_those_of_a_batch_of_them(chunk_size: int) -> None:
    policy = make_policy()
    batch, states = make_batch(policy, 7), th.tensor([0, 3, 4])
    parameters = actor_parameters(policy)
    vector = th.ones(sum(parameter.numel() for parameter in parameters), dtype=th.float64)
    alone = FisherVectorProduct(actor_of(policy), parameters, batch.take(states), 3)(vector)
    product = FisherVectorProduct(actor_of(policy), parameters, batch, chunk_size, states)
    for _ in range(2):
        th.testing.assert_close(product(vector), alone, rtol=1e-9, atol=1e-12)


def test_products_leave_parameters_and_gradients_alone() -> None:
    policy = make_policy()
    parameters = actor_parameters(policy)
    before = [parameter.detach().clone() for parameter in parameters]
    fisher_matrix(policy, make_batch(policy))
    assert all(th.equal(a, b) for a, b in zip(parameters, before, strict=True))
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_the_first_chunk_is_passed_through_the_network_once() -> None:
    policy = make_policy()
    calls = []
    policy.pi_features_extractor.register_forward_hook(lambda *_: calls.append(1))
    parameters = actor_parameters(policy)
    batch = make_batch(policy, 7)
    vector = th.ones(sum(parameter.numel() for parameter in parameters), dtype=th.float64)
    for chunk_size, expected in ((7, 1), (3, 7)):  # three products: one graph, or one and two chunks each
        calls.clear()
        product = FisherVectorProduct(actor_of(policy), parameters, batch, chunk_size)
        for _ in range(3):
            product(vector)
        assert len(calls) == expected


@pytest.mark.parametrize("frozen", ["log_std", "action_net", "policy_net"])
def test_a_frozen_part_of_the_actor_is_left_out(frozen: str) -> None:
    policy = make_policy()
    batch = make_batch(policy)
    names = [name for name, _ in policy.named_parameters() if "value" not in name]
    kept = th.cat([th.full((p.numel(),), frozen not in name) for name, p in policy.named_parameters() if name in names])
    expected = hessian_of_mean_kl(policy, batch)[kept][:, kept]
    parameters = [p for name, p in policy.named_parameters() if name in names and frozen not in name]
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(frozen not in name)
    product = FisherVectorProduct(actor_of(policy), parameters, batch, 100)
    th.testing.assert_close(matrix_of(product, len(expected)), expected, rtol=1e-9, atol=1e-12)


def test_only_the_standard_deviation_trains() -> None:
    policy = make_policy()
    policy.requires_grad_(False)
    policy.log_std.requires_grad_()
    product = FisherVectorProduct(actor_of(policy), [policy.log_std], make_batch(policy), 100)
    th.testing.assert_close(matrix_of(product, 2), 2.0 * th.eye(2, dtype=th.float64))


def test_a_non_finite_policy_gives_nan_and_no_exception() -> None:
    policy = make_policy()
    batch = make_batch(policy)
    with th.no_grad():
        policy.log_std.fill_(th.nan)
    assert fisher_matrix(policy, batch).isnan().any()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    n_states=st.integers(1, 500),
    every=st.integers(1, 9),
    fraction=st.floats(1e-6, 1.0),
    seed=st.tuples(st.integers(0, 2**32), st.integers(0, 10**6)),
)
def test_subsets_are_sorted_disjoint_and_of_the_right_size(
    n_states: int, every: int, fraction: float, seed: tuple[int, int]
) -> None:
    candidates = np.arange(0, n_states, every)[::-1]
    chosen, others = (subset.tolist() for subset in fisher_subsets(candidates, fraction, n_states, seed))
    assert len(chosen) == max(1, round(fraction * len(candidates)))
    assert len(others) == min(len(chosen), n_states - len(chosen))
    assert set(chosen) <= set(candidates.tolist())
    assert set(others) <= set(range(n_states)) - set(chosen)
    assert (chosen, others) == (sorted(set(chosen)), sorted(set(others)))


def draw(n_states: int, fraction: float, seed: tuple[int, int]) -> list[int]:
    return [int(unit) for part in fisher_subsets(np.arange(n_states), fraction, n_states, seed) for unit in part]


def test_subsets_repeat_for_the_same_seed_and_update_and_no_other() -> None:
    draws = {seed: tuple(draw(200, 0.1, seed)) for seed in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    assert all(tuple(draw(200, 0.1, seed)) == found for seed, found in draws.items())
    assert len(set(draws.values())) == len(draws)


@pytest.mark.parametrize("which", [0, 1])
def test_either_subset_reaches_every_state(which: int) -> None:
    seen = np.concatenate([fisher_subsets(np.arange(20), 0.1, 20, (0, update))[which] for update in range(200)])
    assert set(seen) == set(range(20))


def test_subsets_draw_nothing_from_the_global_generators() -> None:
    before = generator_states()
    draw(100, 0.5, (3, 4))
    assert generator_states() == before


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_a_product_follows_parameters_that_are_written_to(chunk_size: int) -> None:
    policy = make_policy()
    parameters, batch = fisher_parameters(policy), make_batch(policy)
    product = FisherVectorProduct(actor_of(policy), parameters, batch, chunk_size)
    old = flatten(parameters)
    vector = th.ones_like(old)
    before = product(vector)
    assign(parameters, 1.5 * old)
    there = product(vector)
    th.testing.assert_close(there, FisherVectorProduct(actor_of(policy), parameters, batch, 100)(vector))
    assert not th.allclose(there, before)
    assign(parameters, old)
    th.testing.assert_close(product(vector), before)
