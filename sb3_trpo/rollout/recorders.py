"""
How a rollout is acted and written down: with the actor alone where that is possible, values and log-probs in one pass at
the end; else as SB3 does.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_trpo.actor.plain_policy import critic_layers, encoder, in_blocks, make_layers, why_not_layers, why_not_plain_actor
from sb3_trpo.batch.advantages import generalized_advantages
from sb3_trpo.batch.batch import Observations
from sb3_trpo.rollout.finite_checks import check_finite
from sb3_trpo.rollout.numpy_actor import NumpyActor

Obs: TypeAlias = np.ndarray | dict[str, np.ndarray]
Infos: TypeAlias = list[dict[str, object]]

_BUFFER_METHODS = {name: getattr(RolloutBuffer, name) for name in ("add", "compute_returns_and_advantage")}
"""SB3's methods as imported: a buffer whose class was patched later must be asked itself."""


def why_not_deferred(policy: ActorCriticPolicy, buffer: RolloutBuffer) -> str | None:
    """
    Tell whether :class:`DeferredRecorder` fills this buffer exactly as the policy and the buffer would.

    :param policy: any policy
    :param buffer: any rollout buffer
    :return: None if it does; otherwise the first thing that speaks against it
    """
    if type(buffer) is not RolloutBuffer:
        return f"the rollout buffer is a {type(buffer).__name__}"
    if any(name in vars(buffer) or getattr(RolloutBuffer, name) is not own for name, own in _BUFFER_METHODS.items()):
        return "a method of the rollout buffer is patched"
    return why_not_plain_actor(policy) or why_not_layers(critic_layers(policy))


class Recorder(Protocol):
    """How a rollout is acted and written down."""

    def act(self, obs: Obs, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        """
        :return: the observations as the policy reads them; actions, values and log-probs of the step, of which the latter two
            may be NaN until :meth:`finish`
        """

    def record(
        self, step: int, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray, infos: Infos, dones: np.ndarray
    ) -> None:
        """
        Write the step to the buffer; timeouts are bootstrapped with the value of the terminal observation.

        :raises ValueError: if a terminal observation is not finite
        """

    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        """
        Compute returns and advantages.

        :return: values of the last observation, log-probs of the last step
        """


class ImmediateRecorder:
    """SB3's way, for any policy and any buffer: values and log-probs with every action, ``add`` every step."""

    def __init__(self, policy: ActorCriticPolicy, buffer: RolloutBuffer, gamma: float) -> None:
        self._policy = policy
        self._buffer = buffer
        self._gamma = gamma

    def act(self, obs: Obs, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        # copied: a VecEnv may write the next observation into the same array
        self._obs = {key: np.array(value) for key, value in obs.items()} if isinstance(obs, dict) else np.array(obs)
        obs_tensor = obs_as_tensor(self._obs, self._policy.device)
        with th.no_grad():
            actions, self._values, self._log_probs = self._policy(obs_tensor)
        return obs_tensor, actions.cpu().numpy(), self._values, self._log_probs

    def record(
        self, step: int, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray, infos: Infos, dones: np.ndarray
    ) -> None:
        check_finite("value", self._values.cpu().numpy(), step)
        check_finite("log-probability of the action", self._log_probs.cpu().numpy(), step)
        ended = timeouts(infos, dones)
        if ended:
            terminal_obs = terminal_observations(infos, ended, step)
            rewards = np.array(rewards, dtype=np.float32)
            rewards[ended] += self._gamma * torch_values(self._policy, terminal_obs)
        if isinstance(self._policy.action_space, spaces.Discrete):
            actions = actions.reshape(-1, 1)
        self._buffer.add(self._obs, actions, rewards, starts, self._values, self._log_probs)  # type: ignore[arg-type]

    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        with th.no_grad():
            values = self._policy.predict_values(obs_as_tensor(last_obs, self._policy.device))
        self._buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        return values, self._log_probs


class DeferredRecorder:
    """For a plain policy and SB3's own buffer: acts in NumPy, writes rows, and asks the critic once at the end."""

    def __init__(self, policy: ActorCriticPolicy, buffer: RolloutBuffer, gamma: float, n_steps: int, n_envs: int) -> None:
        self._policy = policy
        self._buffer = buffer
        self._gamma = gamma
        self._actor = NumpyActor(policy, n_steps, n_envs)
        self._predict = value_function(policy)
        # views of the buffer's rows, all at once: one by one they would take a tenth of the collection
        shape = (n_steps, n_envs, *(policy.observation_space.shape or ()))
        self._obs_tensors = th.from_numpy(buffer.observations.reshape(shape)).unbind()
        self._on_cpu = policy.device.type == "cpu"
        self._unknown_values = th.full((n_envs, 1), th.nan)
        self._unknown_log_probs = th.full((n_envs,), th.nan)
        self._timeouts: list[tuple[int, int]] = []
        self._terminal_obs: list[np.ndarray] = []

    def act(self, obs: Obs, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        assert isinstance(obs, np.ndarray)
        self._buffer.observations[step] = obs.reshape(self._buffer.observations.shape[1:])
        actions = self._actor.act(obs, step)
        check_finite("action distribution", self._actor.outputs[step], step)
        obs_tensor = self._obs_tensors[step]
        if not self._on_cpu:
            obs_tensor = obs_tensor.to(self._policy.device)
        return obs_tensor, actions, self._unknown_values, self._unknown_log_probs

    def record(
        self, step: int, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray, infos: Infos, dones: np.ndarray
    ) -> None:
        buffer = self._buffer
        buffer.actions[step] = actions.reshape(len(actions), -1)
        buffer.rewards[step] = rewards
        buffer.episode_starts[step] = starts
        buffer.pos = step + 1
        ended = timeouts(infos, dones)
        if ended:
            terminal_obs = terminal_observations(infos, ended, step)
            self._timeouts += [(step, i) for i in ended]
            self._terminal_obs.append(terminal_obs)

    @np.errstate(all="ignore")  # as torch does, whatever the user has set
    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        buffer = self._buffer
        rows = buffer.observations.reshape(-1, *buffer.obs_shape)
        actions = th.from_numpy(buffer.actions.reshape(len(rows), -1)).float()
        if isinstance(self._policy.action_space, spaces.Discrete):
            actions = actions.flatten()
        with th.no_grad():
            log_probs = self._actor.log_probs(actions)
        del self._actor  # its arrays are as large as the rollout, and callbacks hold on to the recorder
        buffer.values[:] = self._predict(rows).reshape(buffer.values.shape)
        buffer.log_probs[:] = log_probs.numpy().reshape(buffer.log_probs.shape)
        for step in np.flatnonzero(~np.isfinite(buffer.values + buffer.log_probs).all(axis=1)).tolist():
            check_finite("value", buffer.values[step], step)
            check_finite("log-probability of the action", buffer.log_probs[step], step)
        if self._timeouts:
            steps, envs = zip(*self._timeouts, strict=True)
            buffer.rewards[list(steps), list(envs)] += self._gamma * self._predict(np.concatenate(self._terminal_obs))
        buffer.full = True
        last_values = self._predict(last_obs)  # type: ignore[arg-type]
        self._estimate_advantages(last_values, dones)
        return th.from_numpy(last_values).reshape(-1, 1), log_probs[-buffer.n_envs :]

    def _estimate_advantages(self, last_values: np.ndarray, dones: np.ndarray) -> None:
        """Do what the buffer's ``compute_returns_and_advantage`` does."""
        buffer = self._buffer
        alive = 1.0 - np.append(buffer.episode_starts[1:], dones[None].astype(np.float32), axis=0)
        next_values = np.append(buffer.values[1:], last_values[None], axis=0)
        deltas = buffer.rewards + buffer.gamma * alive * next_values - buffer.values
        buffer.advantages[:] = generalized_advantages(deltas, buffer.gamma * buffer.gae_lambda * alive)
        buffer.returns[:] = buffer.advantages + buffer.values


def timeouts(infos: Infos, dones: np.ndarray) -> list[int]:
    """
    :param infos: one an environment
    :param dones: shape (n_envs,)
    :return: environments whose episode was cut off by a time limit at this step
    """
    if not np.count_nonzero(dones):  # five times faster than any()
        return []
    return [
        i
        for i, (info, done) in enumerate(zip(infos, dones, strict=True))
        if done and info.get("terminal_observation") is not None and info.get("TimeLimit.truncated", False)
    ]


def terminal_observations(infos: Infos, ended: list[int], step: int) -> Any:
    """
    :param infos: one an environment
    :param ended: the k environments to look at
    :param step: index of the step in the rollout, for the message
    :return: copies of their terminal observations: an array with k rows, or a dict of such
    :raises ValueError: if one is not finite
    """
    observations: list[Any] = [infos[i]["terminal_observation"] for i in ended]
    stacked: Any
    if isinstance(observations[0], dict):
        stacked = {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    else:
        stacked = np.stack(observations)
    check_finite("terminal observation", stacked, step, envs=ended)
    return stacked


def value_function(policy: ActorCriticPolicy) -> Callable[[np.ndarray], np.ndarray]:
    """
    :param policy: a plain policy
    :return: observations of shape (k, ...) -> values of shape (k,), in NumPy
    """
    encode, layers = encoder(policy), make_layers(policy, critic_layers(policy))

    def numpy_values(observations: np.ndarray) -> np.ndarray:
        layers.refresh()
        return in_blocks(layers, encode, observations)[:, 0]

    return numpy_values


def torch_values(policy: ActorCriticPolicy, observations: Obs) -> np.ndarray:
    """
    :param policy: any policy
    :param observations: shape (k, ...), or a dict of such
    :return: values, shape (k,)
    """
    with th.no_grad():
        values = policy.predict_values(policy.obs_to_tensor(observations)[0])
    return values.cpu().numpy().flatten()
