"""
Two ways to act in a rollout and record it. The fast way uses only the actor at every step, and computes values and
log-probabilities in one pass at the end; it serves policies for which that is exact. The other way does as SB3 does.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.actor.choose import plain_policy
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.batch.advantages import generalized_advantages
from sb3_trpo.batch.states import Observations
from sb3_trpo.batch.stored_masks import mask_rows
from sb3_trpo.batch.whole import Share
from sb3_trpo.distributions.action_masks import MaskLayout, refuse_forbidden
from sb3_trpo.originals import altered_method
from sb3_trpo.policies.interface import MaskSource, Obs, PolicyInterface
from sb3_trpo.rollout.bootstrap import Infos, numpy_values, terminal_observations, timeouts, torch_values
from sb3_trpo.rollout.finite_checks import check_finite
from sb3_trpo.rollout.numpy_actor import NumpyActor, numpy_actor
from sb3_trpo.rollout.torch_actor import torch_act


def fast_policy(interface: PolicyInterface, buffer: RolloutBuffer) -> PlainPolicy | Reason:
    """
    Tell whether :class:`DeferredRecorder` fills this buffer exactly as the policy and the buffer would.

    :param interface: interface to the policy
    :param buffer: any rollout buffer
    :return: the policy as a plain one if it does; otherwise the first reason why not
    """
    if type(buffer) is not RolloutBuffer:
        return Reason(f"the rollout buffer is a {type(buffer).__name__}")
    altered = altered_method([buffer])
    if altered is not None:
        return Reason(f"{altered} is patched")
    plain = plain_policy(interface)
    if isinstance(plain, Reason):
        return plain
    reasons = [part for part in (plain.actor, plain.critic) if isinstance(part, Reason)]
    return reasons[0] if reasons else plain


class Recorder(Protocol):
    """A way to act in a rollout and record it."""

    action_masks: np.ndarray | None
    """The actions that were possible when :meth:`act` was called last, shape (n_envs, n), bool; None: all."""

    def act(self, obs: Obs, starts: np.ndarray, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        """
        Draw the actions of one step.

        :param obs: shape (n_envs, ...), or a dict of such
        :param starts: whether an episode begins, shape (n_envs,)
        :param step: index of the step in the rollout
        :return: the observations as the policy reads them; actions, values and log-probs of the step, of which the latter two
            may be NaN until :meth:`finish`
        """

    def record(
        self, step: int, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray, infos: Infos, dones: np.ndarray
    ) -> None:
        """
        Write the step to the buffer, and bootstrap timeouts with the value of the terminal observation.

        :param step: index of the step in the rollout
        :param actions: shape (n_envs, ...)
        :param rewards: shape (n_envs,)
        :param starts: whether an episode began with the step, shape (n_envs,)
        :param infos: one per environment
        :param dones: whether an episode ended with the step, shape (n_envs,)
        :raises ValueError: if a terminal observation is not finite, or its shape is not the space's
        """

    def hand_over(self, n_steps: int) -> None:
        """
        Complete the buffer's rows so far: an :class:`ImmediateRecorder` records the rest of the rollout.

        :param n_steps: number of steps so far
        """

    def abandon(self) -> None:
        """End the rollout after a step that is not recorded, because a callback has stopped the training."""

    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        """
        Compute returns and advantages.

        :param last_obs: observation after the last step
        :param dones: whether an episode ended with the last step, shape (n_envs,)
        :return: values of the last observation, log-probs of the last step
        """


class ImmediateRecorder:
    """
    Records as SB3 does, for any policy and any buffer: values and log-probs with every action, ``add`` at every step.

    :param interface: interface to the policy
    :param buffer: the buffer to fill
    :param env: the training environments
    :param gamma: discount factor
    """

    def __init__(self, interface: PolicyInterface, buffer: RolloutBuffer, env: VecEnv, gamma: float) -> None:
        self._interface = interface
        self._buffer = buffer
        self._env = env
        self._gamma = gamma
        self.action_masks: np.ndarray | None = None

    def act(self, obs: Obs, starts: np.ndarray, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        """See :meth:`Recorder.act`."""
        # copied: a VecEnv may write the next observation into the same array
        self._obs = {key: np.array(value) for key, value in obs.items()} if isinstance(obs, dict) else np.array(obs)
        self._states = self._interface.present(self._obs, self._env, starts)
        masks = self._states.action_masks
        self.action_masks = None if masks is None else masks.cpu().numpy()
        actions, self._values, self._log_probs = torch_act(self._interface, self._states, step)
        return self._states.observations, actions.cpu().numpy(), self._values, self._log_probs

    def record(
        self, step: int, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray, infos: Infos, dones: np.ndarray
    ) -> None:
        """See :meth:`Recorder.record`."""
        if self.action_masks is not None:
            layout = MaskLayout.of(self._interface.policy.action_space)
            refuse_forbidden(layout, self.action_masks[None], actions[None], step)
        check_finite("value", self._values.cpu().numpy(), step)
        check_finite("log-probability of the action", self._log_probs.cpu().numpy(), step)
        ended = timeouts(infos, dones)
        if ended:
            terminal_obs = terminal_observations(infos, ended, step, self._interface.policy.observation_space)
            rewards = np.array(rewards, dtype=np.float32)
            rewards[ended] += self._gamma * torch_values(self._interface, terminal_obs, ended)
        if isinstance(self._interface.policy.action_space, spaces.Discrete):
            actions = actions.reshape(-1, 1)
        self._buffer.add(self._obs, actions, rewards, starts, self._values, self._log_probs)  # type: ignore[arg-type]
        self._interface.store(self._buffer, step, self._states)

    def hand_over(self, n_steps: int) -> None:
        """See :meth:`Recorder.hand_over`."""

    def abandon(self) -> None:
        """See :meth:`Recorder.abandon`."""

    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        """See :meth:`Recorder.finish`."""
        with th.no_grad():
            values = self._interface.values(self._interface.present(last_obs, self._env, dones))
        self._buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        return values, self._log_probs


class DeferredRecorder:
    """
    Records a plain policy in SB3's own buffer: acts in NumPy, writes rows, and calls the critic once at the end.

    :param plain: the policy, as :func:`fast_policy` gives it
    :param buffer: the buffer to fill
    :param gamma: discount factor
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    :param mask_source: the source of the action masks; None: all actions are possible
    :param share: this worker's environments among all; None: it has all
    """

    def __init__(
        self,
        plain: PlainPolicy,
        buffer: RolloutBuffer,
        gamma: float,
        n_steps: int,
        n_envs: int,
        mask_source: MaskSource | None = None,
        share: Share | None = None,
    ) -> None:
        self.action_masks: np.ndarray | None = None
        self._mask_source = mask_source
        self._policy = plain.policy
        if mask_source is not None:
            self._layout = MaskLayout.of(plain.policy.action_space)
            self._masks = mask_rows(buffer, self._layout.size)
        self._buffer = buffer
        self._gamma = gamma
        self._actor = self._make_actor(plain, n_steps, n_envs, share)
        self._predict = self._make_critic(plain)
        # views of the buffer's rows, all made at once: one by one they would take a tenth of the collection's time
        shape = (n_steps, n_envs, *(plain.policy.observation_space.shape or ()))
        self._obs_tensors = th.from_numpy(buffer.observations.reshape(shape)).unbind()
        self._on_cpu = plain.policy.device.type == "cpu"
        self._unknown_values = th.full((n_envs, 1), th.nan)
        self._unknown_log_probs = th.full((n_envs,), th.nan)
        self._timeouts: list[tuple[int, int]] = []
        self._terminal_obs: list[np.ndarray] = []

    def _make_actor(self, plain: PlainPolicy, n_steps: int, n_envs: int, share: Share | None) -> NumpyActor:
        return numpy_actor(plain, n_steps, n_envs, share)

    def _make_critic(self, plain: PlainPolicy) -> Callable[[np.ndarray], np.ndarray]:
        return numpy_values(plain)

    def _values(self, n_steps: int) -> np.ndarray:
        """Compute the values of the rows so far, shape (n_steps * n_envs,)."""
        buffer = self._buffer
        return self._predict(buffer.observations[:n_steps].reshape(-1, *buffer.obs_shape))

    def _terminal_values(self) -> np.ndarray:
        """Compute the values of the terminal observations."""
        return self._predict(np.concatenate(self._terminal_obs))

    def _last_values(self, last_obs: np.ndarray, dones: np.ndarray) -> np.ndarray:
        """Compute the values of the observations after the last step, shape (n_envs,)."""
        return self._predict(last_obs)

    def act(self, obs: Obs, starts: np.ndarray, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        """See :meth:`Recorder.act`."""
        assert isinstance(obs, np.ndarray)
        self._buffer.observations[step] = obs.reshape(self._buffer.observations.shape[1:])
        if self._mask_source is not None:
            self.action_masks = self._masks[step] = self._mask_source.masks(obs)
        actions = self._actor.act(obs, step, self.action_masks)
        check_finite("action distribution", self._actor.outputs[step], step)
        obs_tensor = self._obs_tensors[step]
        if not self._on_cpu:
            obs_tensor = obs_tensor.to(self._policy.device)
        return obs_tensor, actions, self._unknown_values, self._unknown_log_probs

    def record(
        self, step: int, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray, infos: Infos, dones: np.ndarray
    ) -> None:
        """See :meth:`Recorder.record`."""
        buffer = self._buffer
        buffer.actions[step] = actions.reshape(len(actions), -1)
        buffer.rewards[step] = rewards
        buffer.episode_starts[step] = starts
        buffer.pos = step + 1
        ended = timeouts(infos, dones)
        if ended:
            terminal_obs = terminal_observations(infos, ended, step, self._policy.observation_space)
            self._timeouts += [(step, i) for i in ended]
            self._terminal_obs.append(terminal_obs)

    def abandon(self) -> None:
        """See :meth:`Recorder.abandon`."""

    @np.errstate(all="ignore")  # like torch, whatever the user has set
    def hand_over(self, n_steps: int) -> None:
        """See :meth:`Recorder.hand_over`."""
        buffer = self._buffer
        n_rows = n_steps * buffer.n_envs
        actions = th.from_numpy(buffer.actions[:n_steps].reshape(n_rows, -1)).float()
        if isinstance(self._policy.action_space, spaces.Discrete):
            actions = actions.flatten()
        masks: th.Tensor | None = None
        if self._mask_source is not None:
            refuse_forbidden(self._layout, self._masks[:n_steps], buffer.actions[:n_steps], 0)
            masks = th.from_numpy(self._masks[:n_steps]).flatten(end_dim=1)
        with th.no_grad():
            log_probs = self._actor.log_probs(actions, masks)
        del self._actor  # its arrays are as large as the rollout, and callbacks keep the recorder alive
        buffer.values[:n_steps] = self._values(n_steps).reshape(n_steps, buffer.n_envs)
        buffer.log_probs[:n_steps] = log_probs.numpy().reshape(n_steps, buffer.n_envs)
        finite = np.isfinite(buffer.values[:n_steps] + buffer.log_probs[:n_steps]).all(axis=1)
        for step in np.flatnonzero(~finite).tolist():
            check_finite("value", buffer.values[step], step)
            check_finite("log-probability of the action", buffer.log_probs[step], step)
        if self._timeouts:
            steps, envs = zip(*self._timeouts, strict=True)
            buffer.rewards[list(steps), list(envs)] += self._gamma * self._terminal_values()

    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        """See :meth:`Recorder.finish`."""
        buffer = self._buffer
        self.hand_over(buffer.buffer_size)
        buffer.full = True
        with np.errstate(all="ignore"):
            assert isinstance(last_obs, np.ndarray)
            last_values = self._last_values(last_obs, dones)
            self._estimate_advantages(last_values, dones)
        return th.from_numpy(last_values).reshape(-1, 1), th.from_numpy(buffer.log_probs[-1].copy())

    def _estimate_advantages(self, last_values: np.ndarray, dones: np.ndarray) -> None:
        """Compute the same as the buffer's ``compute_returns_and_advantage``."""
        buffer = self._buffer
        alive = 1.0 - np.append(buffer.episode_starts[1:], dones[None].astype(np.float32), axis=0)
        next_values = np.append(buffer.values[1:], last_values[None], axis=0)
        deltas = buffer.rewards + buffer.gamma * alive * next_values - buffer.values
        buffer.advantages[:] = generalized_advantages(deltas, buffer.gamma * buffer.gae_lambda * alive)
        buffer.returns[:] = buffer.advantages + buffer.values
