"""Small policies and batches in float64, and brute-force matrices to compare with."""

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import (
    Distribution,
    SquashedDiagGaussianDistribution,
    StateDependentNoiseDistribution,
    sum_independent_dims,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.actor.choose import actor_network
from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.actor.reached_parameters import reached_parameters
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.from_buffer import read_batch
from sb3_trpo.batch.states import States
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.rollout.recorders import fast_policy

OBSERVATIONS = spaces.Box(-1.0, 1.0, (3,), dtype=np.float32)
BOX = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)


class DoubleFlatten(FlattenExtractor):
    """SB3 casts observations to float32: widen them for a policy in float64."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).double()


class DoubleEncoder(DoubleFlatten):
    """An extractor with weights of its own."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.encoder = nn.Sequential(nn.Linear(self.features_dim, 3), nn.Tanh())
        self._features_dim = 3

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.encoder(super().forward(observations))
        return features


class Experts(DoubleFlatten):
    """Sends a state through one layer or another, by the sign of its first number."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.positive, self.negative = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        rows = super().forward(observations)
        features = th.zeros_like(rows)
        for expert, chosen in ((self.positive, rows[:, 0] > 0.0), (self.negative, rows[:, 0] <= 0.0)):
            if chosen.any():
                features = features.index_put((chosen,), expert(rows[chosen]))
        return features


class StudentT(Distribution):
    """Independent Student-t actions: a distribution that is not SB3's and has no closed-form KL."""

    distribution: th.distributions.Distribution

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def proba_distribution_net(self, latent_dim: int) -> nn.Module:
        return nn.Linear(latent_dim, self.action_dim)

    def proba_distribution(self, loc: th.Tensor, log_scale: th.Tensor) -> "StudentT":
        self.distribution = th.distributions.StudentT(4.0, loc, log_scale.exp().expand_as(loc))
        return self

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        return sum_independent_dims(self.distribution.log_prob(actions))

    def entropy(self) -> th.Tensor | None:
        return None

    def sample(self) -> th.Tensor:
        return self.distribution.sample()

    def mode(self) -> th.Tensor:
        return self.distribution.mean

    def actions_from_params(self, loc: th.Tensor, log_scale: th.Tensor) -> th.Tensor:
        return self.proba_distribution(loc, log_scale).sample()

    def log_prob_from_params(self, loc: th.Tensor, log_scale: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        actions = self.actions_from_params(loc, log_scale)
        return actions, self.log_prob(actions)


class StudentTPolicy(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return StudentT(2).proba_distribution(self.action_net(latent_pi), self.log_std)


class SquashedGaussianPolicy(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return SquashedDiagGaussianDistribution(2).proba_distribution(self.action_net(latent_pi), self.log_std)


class MaskedPolicy(ActorCriticPolicy):
    """Never takes the first action."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
        logits = self.action_net(latent_pi)
        mask = th.zeros_like(logits, dtype=th.bool)
        mask[:, 0] = True
        return self.action_dist.proba_distribution(logits.masked_fill(mask, -th.inf))


class OwnBuffer(RolloutBuffer):
    """Reads its samples its own way."""

    def get(self, batch_size: int | None = None) -> Iterator[Any]:  # type: ignore[override]
        yield from super().get(batch_size)


ACTORS: dict[str, dict[str, Any]] = {
    "gaussian": {"action_space": BOX},
    "squashed_gaussian": {"action_space": BOX, "policy_class": SquashedGaussianPolicy},
    "gsde": {"action_space": BOX, "use_sde": True},
    "gsde_expln": {"action_space": BOX, "use_sde": True, "use_expln": True, "full_std": False},
    "squashed_gsde": {"action_space": BOX, "use_sde": True, "squash_output": True},
    "categorical": {"action_space": spaces.Discrete(3)},
    "multi_categorical": {"action_space": spaces.MultiDiscrete([2, 3])},
    "bernoulli": {"action_space": spaces.MultiBinary(3)},
    "student_t": {"action_space": BOX, "policy_class": StudentTPolicy},
}
"""Arguments of :func:`make_policy`, one entry for every kind of action distribution."""


def make_policy(
    action_space: spaces.Space[Any] = BOX,
    policy_class: type[ActorCriticPolicy] = ActorCriticPolicy,
    features_extractor_class: type[FlattenExtractor] = DoubleFlatten,
    observation_space: spaces.Space[Any] = OBSERVATIONS,
    **kwargs: Any,
) -> ActorCriticPolicy:
    """A policy in float64 and evaluation mode, away from the near-zero initialisation of its last layer."""
    th.manual_seed(0)
    kwargs = {"net_arch": [4], "features_extractor_class": features_extractor_class, **kwargs}
    policy = policy_class(observation_space, action_space, lambda _: 1e-3, **kwargs).double()
    policy.set_training_mode(False)
    perturb(policy.parameters(), 0.3)
    return policy


def perturb(parameters: Any, scale: float) -> None:
    with th.no_grad():
        for parameter in parameters:
            parameter.add_(scale * th.randn_like(parameter))


def make_batch(policy: ActorCriticPolicy, n_states: int = 7) -> Batch:
    """Random states, actions drawn by the policy, random advantages."""
    generator = th.Generator().manual_seed(1)
    observations = th.randn(n_states, 3, generator=generator)
    with th.no_grad():
        distribution = policy.get_distribution(observations)
        actions = draw(distribution)
        log_prob = distribution.log_prob(actions)
    advantages, returns = th.randn(2, n_states, generator=generator, dtype=th.float64)
    return Batch(States(observations), actions, log_prob, advantages, returns)


def collect(model: TRPO, callback: BaseCallback | None = None) -> TRPO:
    """Collect one rollout without updating, so that the weights are those that acted."""
    _, callback = model._setup_learn(model.n_steps * model.n_envs, callback)
    callback.on_training_start({}, {})
    assert model.env is not None
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def batch_of(model: TRPO) -> Batch:
    """The rollout that a model has collected."""
    return read_batch(model.rollout_buffer, model.action_space, model.interface.state_fields)


def actor_of(policy: ActorCriticPolicy) -> ActorNetwork:
    """The policy's actor as the update differentiates it."""
    return actor_network(PolicyInterface(policy), PlainPolicy.of(policy))


def plain(policy: ActorCriticPolicy) -> PlainPolicy:
    """A policy that is known to be plain."""
    found = PlainPolicy.of(policy)
    assert not isinstance(found, Reason), found
    return found


def why_not_plain_actor(policy: ActorCriticPolicy) -> str | None:
    """Why a policy's actions are not computed by hand; None if they are."""
    found = PlainPolicy.of(policy)
    if isinstance(found, Reason):
        return found
    return found.actor if isinstance(found.actor, Reason) else None


def why_not_fast(model: TRPO) -> str | None:
    """Why a model does not collect its rollouts without torch; None if it does."""
    found = fast_policy(model.interface, model.rollout_buffer)
    return found if isinstance(found, Reason) else None


def reached(policy: ActorCriticPolicy, batch: Batch, chunk_size: int = 100) -> list[nn.Parameter]:
    """The parameters that the update finds to be the actor's."""
    return reached_parameters(PolicyInterface(policy), PlainPolicy.of(policy), batch, chunk_size)


def draw(distribution: Distribution) -> th.Tensor:
    """One action a state; gSDE's own ``sample`` would share one noise matrix among the states."""
    if not isinstance(distribution, StateDependentNoiseDistribution):
        return distribution.sample()
    actions = distribution.distribution.rsample()
    return actions if distribution.bijector is None else distribution.bijector.forward(actions)


def actor_parameters(policy: ActorCriticPolicy) -> list[nn.Parameter]:
    """The actor's parameters of SB3's own policies, by name."""
    return [parameter for name, parameter in policy.named_parameters() if "value" not in name]


def torch_distributions(distribution: Distribution) -> list[th.distributions.Distribution]:
    """The torch distributions that SB3's consists of; SB3 builds new ones at every call of the policy."""
    parts = distribution.distribution
    return parts if isinstance(parts, list) else [parts]


def torch_kl(old: list[th.distributions.Distribution], new: list[th.distributions.Distribution]) -> th.Tensor:
    """KL(old‖new) of each state by torch, summed over the action dimensions."""
    each = [th.distributions.kl_divergence(o, n) for o, n in zip(old, new, strict=True)]
    return th.stack([kl.reshape(len(kl), -1).sum(dim=1) for kl in each]).sum(dim=0)


def matrix_of(product: Callable[[th.Tensor], th.Tensor], size: int) -> th.Tensor:
    """The matrix of a linear map, column by column."""
    return th.stack([product(unit) for unit in th.eye(size, dtype=th.float64)], dim=1)


def jacobian(outputs: th.Tensor, parameters: Sequence[th.Tensor]) -> th.Tensor:
    """Derivatives of every output by every parameter, one backward pass an output, shape (outputs, P)."""
    rows = []
    for output in outputs.flatten():
        gradients = th.autograd.grad(
            output, parameters, create_graph=True, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(th.cat([gradient.flatten() for gradient in gradients]))
    return th.stack(rows)


def same_bits(a: th.Tensor, b: th.Tensor) -> bool:
    """Whether two tensors hold the same bits: unlike ==, tells -0.0 from 0.0 and one NaN from another."""
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def generator_states() -> list[bytes]:
    """The states of every global random generator."""
    states = (random.getstate(), np.random.get_state(), th.get_rng_state().tolist())  # noqa: NPY002
    return [pickle.dumps(state) for state in states]
