"""Acts in NumPy, without torch's overhead, and draws the noise of a whole rollout at once."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.actor.mlp import ParameterViews
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.batch.whole import Share
from sb3_trpo.distributions.beta import BetaDistribution
from sb3_trpo.distributions.clipped_gaussian import GAUSSIANS
from sb3_trpo.distributions.masked import masked

Array: TypeAlias = np.ndarray

_BLOCK_ROWS = 1024
"""Number of log-probabilities computed at a time: the normalised logits of many choices take memory."""


class NumpyActor:
    """
    Draws actions from a plain policy without torch's overhead, for one rollout.

    It never writes to the parameters, which it reads through views on the CPU and through copies elsewhere. Both are renewed
    when the policy's parameters change. The noise of the whole rollout comes from torch's global generator.

    :param plain: the policy; its :attr:`~sb3_trpo.actor.plain_policy.PlainPolicy.actor` must be layers
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    :param share: this worker's environments among all, for which the noise is drawn; None: it has all
    """

    def __init__(self, plain: PlainPolicy, n_steps: int, n_envs: int, share: Share | None = None) -> None:
        assert not isinstance(plain.actor, Reason)
        policy = plain.policy
        self._distribution = copy.copy(policy.action_dist)  # a thread that predicts uses the policy's
        self._gaussian = plain.log_std is not None
        self._shape = policy.action_space.shape or ()
        self._encode = plain.encode
        self._layers = plain.actor
        if self._gaussian:
            self._log_std = ParameterViews([(policy._parameters, "log_std")])
        self._choose = _CHOOSERS[type(policy.action_dist)](policy)
        self._forbid = _force if isinstance(policy.action_dist, BernoulliDistribution) else _forbid
        # the user may have told NumPy to raise, which torch never does; asking at every step would take a microsecond
        self._told_to_raise = "raise" in np.geterr().values()
        # output of the network and std of every step, for the log-probabilities
        shape = (n_steps, n_envs, self._layers.n_out)
        self.outputs = np.empty(shape, dtype=np.float32)
        self._log_stds = np.empty((n_steps, 1, shape[2]), dtype=np.float32)
        share = share or Share.of(n_envs)
        noise = _NOISE[type(policy.action_dist)]((n_steps, share.total, shape[2]))
        self._noise = noise[:, share.own].numpy()

    def act(self, observations: Array, step: int, masks: Array | None = None) -> Array:
        """
        Draw the actions of one step.

        :param observations: shape (n_envs, ...)
        :param step: index of the step in the rollout
        :param masks: the actions that are possible, shape (n_envs, n), bool; None: all
        :return: shape (n_envs, ...), as the policy's ``forward`` returns them
        """
        if not self._told_to_raise:
            return self._draw(observations, step, masks)
        with np.errstate(all="ignore"):
            return self._draw(observations, step, masks)

    def _draw(self, observations: Array, step: int, masks: Array | None) -> Array:
        self._layers.refresh()  # a callback may have changed the weights
        self.outputs[step] = output = self.evaluate(self._encode(observations))
        noise = self._noise[step]
        if self._gaussian:
            self._log_std.refresh()
            self._log_stds[step] = log_std = self._log_std.arrays[0]
            noise = noise * np.exp(log_std)
        noisy = output + noise
        if masks is not None:  # after the noise, so that not even rounding lets a forbidden action win
            noisy = self._forbid(noisy, masks)
        return self._choose(noisy).reshape(-1, *self._shape)

    def evaluate(self, features: Array) -> Array:
        """
        Compute the output of the actor for one step; a subclass whose policy has memory also advances that.

        :param features: the encoded observations, shape (n_envs, n_in)
        :return: shape (n_envs, n_out)
        """
        return self._layers(features)

    def log_probs(self, actions: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """
        Compute the log-probabilities of the rollout's actions under the distributions that drew them.

        :param actions: shape (B, d); (B,) for one discrete action; those of the first B / n_envs steps
        :param masks: the actions that were possible, shape (B, n), bool; None: all
        :return: shape (B,), nats
        """
        _, n_envs, size = self.outputs.shape
        n_steps = len(actions) // n_envs
        parts = [th.from_numpy(self.outputs[:n_steps]).view(-1, size)]
        if self._gaussian:
            parts.append(th.from_numpy(self._log_stds[:n_steps]).expand(n_steps, n_envs, size).reshape(-1, size))
        rows = range(0, len(actions), _BLOCK_ROWS)
        blocks = zip(rows, *(th.split(part, _BLOCK_ROWS) for part in (actions, *parts)), strict=True)
        log_probs = []
        for row, taken, *block in blocks:
            of_block = None if masks is None else masks[row : row + _BLOCK_ROWS]
            distribution = self._distribution if of_block is None else masked(self._distribution, of_block)
            log_probs.append(distribution.proba_distribution(*block).log_prob(taken))
        return th.cat(log_probs)


class BetaNumpyActor(NumpyActor):
    """
    Draws Beta distributed actions, from a random generator for each environment, whose seed comes from torch's.

    :param plain: the policy
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    :param share: this worker's environments among all; None: it has all
    """

    def __init__(self, plain: PlainPolicy, n_steps: int, n_envs: int, share: Share | None = None) -> None:
        super().__init__(plain, n_steps, n_envs, share)
        self._generators = [np.random.default_rng(seed) for seed in self._noise[0, :, 0].tolist()]

    def _draw(self, observations: Array, step: int, masks: Array | None) -> Array:
        self._layers.refresh()  # a callback may have changed the weights
        self.outputs[step] = output = self.evaluate(self._encode(observations))
        a, b = np.split(1.0 + np.logaddexp(0.0, output), 2, axis=1)
        drawn = [generator.beta(*of_env) for generator, *of_env in zip(self._generators, a, b, strict=True)]
        return (2.0 * np.array(drawn) - 1.0).astype(np.float32).reshape(-1, *self._shape)


def numpy_actor(plain: PlainPolicy, n_steps: int, n_envs: int, share: Share | None = None) -> NumpyActor:
    """
    Make the actor of a plain policy.

    :param plain: the policy
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    :param share: this worker's environments among all; None: it has all
    :return: the actor
    """
    cls = BetaNumpyActor if isinstance(plain.policy.action_dist, BetaDistribution) else NumpyActor
    return cls(plain, n_steps, n_envs, share)


# An action is a fixed function of the network's output plus noise: Gaussian noise times the standard deviation for Box,
# the argmax with Gumbel noise for discrete actions, the sign with logistic noise for binary ones. A Beta has generators.
_NOISE: dict[type, Callable[[tuple[int, ...]], th.Tensor]] = {
    **dict.fromkeys(GAUSSIANS, lambda shape: th.randn(shape, dtype=th.float32)),
    CategoricalDistribution: lambda shape: th.empty(shape, dtype=th.float32).exponential_().log_().neg_(),
    MultiCategoricalDistribution: lambda shape: th.empty(shape, dtype=th.float32).exponential_().log_().neg_(),
    BernoulliDistribution: lambda shape: th.rand(shape, dtype=th.float32).logit_(),
    BetaDistribution: lambda shape: th.randint(2**62, (1, shape[1], 1)),  # seeds
}


_LOWEST = np.array(-np.inf, dtype=np.float32)  # an array, because a number would take longer to convert than the rest


def _forbid(noisy: Array, masks: Array) -> Array:
    """Let forbidden values lose: their outputs, shape (n_envs, n), become -inf."""
    return np.where(masks, noisy, _LOWEST)


def _force(noisy: Array, masks: Array) -> Array:
    """Let binary actions, of shape (n_envs, d), be on or off where their pair of masks allows nothing else."""
    return np.where(masks[:, ::2], np.where(masks[:, 1::2], noisy, -np.inf), np.inf)


def _largest_of_each(policy: ActorCriticPolicy) -> Callable[[Array], Array]:
    assert isinstance(policy.action_dist, MultiCategoricalDistribution)
    splits = np.cumsum(policy.action_dist.action_dims)[:-1]
    return lambda x: np.stack([part.argmax(axis=1) for part in np.split(x, splits, axis=1)], axis=1)


_CHOOSERS: dict[type, Callable[[ActorCriticPolicy], Callable[[Array], Array]]] = {
    **dict.fromkeys((*GAUSSIANS, BetaDistribution), lambda _: lambda x: x),
    CategoricalDistribution: lambda _: lambda x: x.argmax(axis=1),
    MultiCategoricalDistribution: _largest_of_each,
    BernoulliDistribution: lambda _: lambda x: (x > 0.0).astype(np.float32),
}
