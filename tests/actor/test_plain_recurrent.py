"""The actor of a recurrent policy by hand and by autograd, and the Fisher matrix against the Hessian of the KL."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from torch import nn

from sb3_trpo import CnnLstmPolicy, MlpLstmPolicy
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.actor.choose import actor_network, plain_policy
from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.actor.plain_recurrent import PlainRecurrentPolicy
from sb3_trpo.actor.reached_parameters import reached_parameters
from sb3_trpo.batch.batch import Batch
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import BOX, OBSERVATIONS, jacobian, perturb
from tests.recurrent_helpers import KINDS, SMALL, make_policy, make_windows
from tests.toy_envs import IMAGE

SPACES: dict[str, spaces.Space[Any]] = {
    "box": BOX,
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
}


def hessian_of_kl(interface: RecurrentInterface, batch: Batch, parameters: list[nn.Parameter]) -> th.Tensor:
    """The Hessian of the mean KL(old‖new), by differentiating a KL computed with torch twice."""

    def flat(distribution: Distribution) -> list[th.distributions.Distribution]:
        parts = distribution.distribution
        return parts if isinstance(parts, list) else [parts]

    old = flat(interface.distribution(batch.states))
    frozen = []
    for part in old:
        names = [name for name in part.arg_constraints if name in vars(part)]
        frozen.append(type(part)(**{name: getattr(part, name).detach() for name in names[-2:]}, validate_args=False))
    new = flat(interface.distribution(batch.states))
    kls = [th.distributions.kl_divergence(o, n).sum() for o, n in zip(frozen, new, strict=True)]
    kl = th.stack(kls).sum() / len(batch)
    gradient = th.cat([g.flatten() for g in th.autograd.grad(kl, parameters, create_graph=True)])
    return jacobian(gradient, parameters)


@pytest.mark.parametrize(
    ("kind", "space"), [*((kind, "box") for kind in KINDS), *(("lstm", space) for space in SPACES if space != "box")]
)
def test_fisher_matrix_is_the_hessian_of_the_kl(kind: str, space: str) -> None:
    policy = make_policy(SPACES[space], **{**KINDS[kind], "lstm_hidden_size": 2, "net_arch": [2]})
    interface, batch = RecurrentInterface(policy), make_windows(policy, (1, 3, 2))
    parameters = reached_parameters(interface, Reason("any"), batch, 100)
    expected = hessian_of_kl(interface, batch, parameters)
    product = FisherVectorProduct(AutogradActor(interface), parameters, batch, chunk_size=3)
    vectors = th.randn(3, len(expected), dtype=th.float64)
    for vector in vectors:
        th.testing.assert_close(product(vector), expected @ vector, rtol=1e-6, atol=1e-10)
        assert vector @ product(vector) >= 0.0
    assert (vectors[0] @ product(vectors[1])).item() == pytest.approx((vectors[1] @ product(vectors[0])).item())


@pytest.mark.parametrize("full_std", [True, False])
def test_fisher_matrix_with_gsde(full_std: bool) -> None:
    policy = make_policy(use_sde=True, full_std=full_std, lstm_hidden_size=2, net_arch=[2])
    interface, batch = RecurrentInterface(policy), make_windows(policy, (1, 3, 2))
    parameters = reached_parameters(interface, Reason("any"), batch, 100)
    expected = hessian_of_kl(interface, batch, parameters)
    vector = th.randn(len(expected), dtype=th.float64)
    product = FisherVectorProduct(AutogradActor(interface), parameters, batch, chunk_size=100)(vector)
    th.testing.assert_close(product, expected @ vector, rtol=1e-6, atol=1e-10)


def single(space: spaces.Space[Any], **kwargs: Any) -> MlpLstmPolicy:
    th.manual_seed(0)
    policy = MlpLstmPolicy(OBSERVATIONS, space, lambda _: 1e-3, **{**SMALL, **kwargs})
    policy.set_training_mode(False)
    perturb(policy.parameters(), 0.3)
    return policy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", SPACES)
def test_by_hand_is_by_autograd(kind: str, space: str) -> None:
    policy = single(SPACES[space], **KINDS[kind])
    interface, batch = RecurrentInterface(policy), make_windows(policy)
    batch = batch.with_advantages(batch.advantages.float())
    plain = plain_policy(interface)
    hand, autograd = actor_network(interface, plain), AutogradActor(interface)
    assert isinstance(hand, HandActor)
    parameters = reached_parameters(interface, plain, batch, 100)
    assert {id(p) for p in parameters} == {id(p) for p in reached_parameters(interface, Reason("any"), batch, 100)}
    log_probs = [network.distribution(batch.states).log_prob(batch.actions) for network in (hand, autograd)]
    th.testing.assert_close(*log_probs, rtol=1e-4, atol=1e-5)
    for chunk_size in (1, 4, 100):
        results = []
        for network in (hand, autograd):
            surrogate = Surrogate(network, batch, 0.01, chunk_size, parameters)
            # torch's LSTM rounds differently with a graph and without
            assert surrogate.evaluate().kl == (0.0 if network is hand else pytest.approx(0.0, abs=1e-12))
            gradient = surrogate.gradient_at_old
            assert gradient is not None
            product = FisherVectorProduct(network, parameters, batch, chunk_size, th.tensor([0, 2, 3]))
            results.append((gradient, product(th.ones_like(gradient))))
        for actual, expected in zip(*results, strict=True):
            th.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_inputs_of_actor_and_critic() -> None:
    policy = single(BOX)
    plain, batch = PlainRecurrentPolicy.of(policy), make_windows(policy)
    assert isinstance(plain, PlainRecurrentPolicy)
    assert batch.states.memory is not None
    for of_critic, expected in ((False, batch.states.memory[:2]), (True, batch.states.memory[2:])):
        sequences = plain.sequences(batch.states, of_critic)
        assert sequences.lengths.tolist() == [1, 3, 2, 5]
        for part, value in zip(sequences.memory, expected, strict=True):
            np.testing.assert_array_equal(part, value.numpy())


class Extended(MlpLstmPolicy):
    pass


def cnn_policy() -> MlpLstmPolicy:
    return CnnLstmPolicy(IMAGE_FIRST, BOX, lambda _: 1e-3, **SMALL)


IMAGE_FIRST = spaces.Box(0, 255, IMAGE.shape[::-1], dtype=np.uint8)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Extended(OBSERVATIONS, BOX, lambda _: 1e-3, **SMALL), "the policy is a Extended"),
        (cnn_policy, "the policy is a CnnLstmPolicy"),
        (lambda: single(BOX, lstm_kwargs={"bias": False}), "the LSTM has no bias, or reads in another order"),
        (lambda: single(spaces.Discrete(2)).double(), "a weight is torch.float64, not float32"),
        (lambda: single(BOX, use_sde=True), "the actions are drawn by a StateDependentNoiseDistribution"),
        (lambda: single(BOX, activation_fn=nn.Softplus), "the network has a Softplus where a known activation is expected"),
    ],
)
def test_other_policies_are_not_plain(make: Any, reason: str) -> None:
    plain = PlainRecurrentPolicy.of(make())
    found = plain if isinstance(plain, Reason) else plain.actor
    assert found == reason


def test_a_hook_is_seen() -> None:
    policy = single(BOX)
    policy.lstm_actor.register_forward_hook(lambda *_: None)
    assert PlainRecurrentPolicy.of(policy) == "the LSTM has hooks"
