"""Small recurrent policies and rollouts, with brute force to compare with."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_trpo import TRPO, MlpLstmPolicy, RecurrentTRPO
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.policies.sequences import no_memory
from tests.helpers import BOX, OBSERVATIONS, DoubleFlatten, draw, perturb
from tests.toy_envs import RandomEnv

SETTINGS: dict[str, Any] = {
    **{"n_steps": 24, "batch_size": 24, "seed": 0, "device": "cpu", "n_critic_updates": 2, "target_kl": 0.02},
    **{"cg_damping": 0.1, "normalize_observations": False, "normalize_returns": False},
}
SMALL: dict[str, Any] = {"lstm_hidden_size": 5, "net_arch": [4]}
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"rnn_type": "gru"},
    "two_layers": {"n_lstm_layers": 2},
    "two_layers_gru": {"n_lstm_layers": 2, "rnn_type": "gru"},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "critic_without": {"enable_critic_lstm": False},
}
"""Arguments of the policy, one entry for every way to remember."""


def make_env(n_envs: int = 3, **kwargs: Any) -> VecEnv:
    """Environments whose episodes have 7 steps, with different random numbers."""
    return make_vec_env(lambda: RandomEnv(**{"length": 7, **kwargs}), n_envs, seed=0)


def make_model(env: VecEnv | None = None, policy: str = "MlpLstmPolicy", **kwargs: Any) -> RecurrentTRPO:
    policy_kwargs = {**SMALL, **kwargs.pop("policy_kwargs", {})}
    return RecurrentTRPO(policy, env or make_env(), **{**SETTINGS, **kwargs}, policy_kwargs=policy_kwargs)


def make_policy(action_space: spaces.Space[Any] = BOX, **kwargs: Any) -> MlpLstmPolicy:
    """A policy in float64 and evaluation mode, away from its initialisation."""
    th.manual_seed(0)
    policy = MlpLstmPolicy(
        OBSERVATIONS, action_space, lambda _: 1e-3, **{**SMALL, "features_extractor_class": DoubleFlatten, **kwargs}
    ).double()
    policy.set_training_mode(False)
    perturb(policy.parameters(), 0.3)
    return policy


def random_memory(policy: MlpLstmPolicy, n: int) -> tuple[th.Tensor, ...]:
    layers = [rnn for rnn in (policy.lstm_actor, policy.lstm_critic) if rnn is not None]
    generator = th.Generator().manual_seed(2)
    return tuple(th.randn(part.shape, generator=generator, dtype=part.dtype) for rnn in layers for part in no_memory(rnn, n))


def make_windows(policy: MlpLstmPolicy, lengths: tuple[int, ...] = (1, 3, 2, 5)) -> Batch:
    """Windows with random states, memories, advantages and returns; actions drawn by the policy."""
    generator = th.Generator().manual_seed(1)
    n = sum(lengths)
    starts = th.tensor(lengths).cumsum(0) - th.tensor(lengths)
    observations = th.randn(n, 3, generator=generator)
    states = States(observations, memory=random_memory(policy, len(lengths)), unit_starts=starts)
    with th.no_grad():
        distribution = RecurrentInterface(policy).distribution(states)
        actions = draw(distribution)
        log_prob = distribution.log_prob(actions)
    advantages, returns = th.randn(2, n, generator=generator, dtype=th.float64)
    return Batch(states, actions, log_prob, advantages, returns)


def act_again(model: TRPO) -> tuple[th.Tensor, th.Tensor]:
    """Outputs and values of the present policy, step by step over the rollout's observations from its first memory."""
    interface, buffer = model.interface, model.rollout_buffer
    assert isinstance(interface, RecurrentInterface)
    again = RecurrentInterface(model.policy)
    again.memory = interface.first_memory
    outputs: list[Any] = []
    values = []
    for step in range(buffer.buffer_size):
        begins = th.from_numpy(buffer.episode_starts[step] != 0)
        if step == 0:  # zeroed already
            begins = th.zeros_like(begins)
        states = States(th.from_numpy(np.array(buffer.observations[step])), memory=again.memory_before(begins))
        with th.no_grad():
            distribution = again.distribution(states)
            values.append(again.act(states).values.flatten())
        outputs.append(distribution.distribution)
    parts = [part.logits if hasattr(part, "logits") else th.cat([part.mean, part.stddev], 1) for part in outputs]
    return th.stack(parts), th.stack(values)


class Adding(nn.RNN):
    """h_t = w h_{t-1} + x_t for inputs that are not negative: a recurrence whose derivatives are known."""

    def __init__(self, weight: float) -> None:
        super().__init__(1, 1, nonlinearity="relu")
        with th.no_grad():
            for name, parameter in self.named_parameters():
                parameter.fill_({"weight_ih_l0": 1.0, "weight_hh_l0": weight}.get(name, 0.0))
