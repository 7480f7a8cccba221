"""Collection: acts with the actor alone where it can, and leaves values, log-probs and timeouts to one pass at the end."""

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.actor import NumpyActor, why_not_numpy
from sb3_trpo.advantages import generalized_advantages
from sb3_trpo.batch import keeps_sb3_layout
from sb3_trpo.finite import check_finite
from sb3_trpo.plain import critic_layers, encoder, in_blocks, make_layers, why_not_layers

Obs: TypeAlias = np.ndarray | dict[str, np.ndarray]
Infos: TypeAlias = list[dict[str, object]]

_BUFFER_METHODS = {name: getattr(RolloutBuffer, name) for name in ("add", "compute_returns_and_advantage")}
"""SB3's methods as imported: a buffer whose class was patched later must be asked itself."""


class RolloutCollector(OnPolicyAlgorithm):
    """
    ``OnPolicyAlgorithm`` with a faster and stricter ``collect_rollouts``.

    Callbacks find ``new_obs``, ``rewards``, ``dones``, ``infos``, ``actions``, ``clipped_actions``, ``values``,
    ``log_probs``, ``n_steps`` and ``rollout_buffer`` among the locals, as in SB3. Where values and log-probabilities are
    deferred, ``values`` and ``log_probs`` are NaN tensors of the right shape until the rollout ends.
    """

    _last_obs: Any

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        Fill the buffer with the present policy.

        After an exception, Ctrl-C included, the model is usable and saveable, and the next ``learn`` resets the
        environments.

        :param env: the training environments
        :param callback: called at every step, and at the rollout's start and end
        :param rollout_buffer: the buffer to fill
        :param n_rollout_steps: steps for each environment
        :return: False if the callback stopped the training
        :raises ValueError: if an observation, an action, a reward or a value is not finite, or does not fit into the buffer
        """
        assert self._last_obs is not None, "No previous observation was provided"
        assert self._last_episode_starts is not None
        _check_buffer(rollout_buffer, n_rollout_steps, self._last_obs)
        started = time.perf_counter()
        self.policy.set_training_mode(False)
        n_steps = 0
        rollout_buffer.reset()
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        callback.on_rollout_start()
        recorder, to_env = self._make_recorder(rollout_buffer, n_rollout_steps, env.num_envs), self._env_actions()
        try:
            while n_steps < n_rollout_steps:
                if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                    self.policy.reset_noise(env.num_envs)
                check_finite("observation", self._last_obs, n_steps, self._vec_normalize_env)
                self._before_step(n_steps)
                actions, values, log_probs = recorder.act(self._last_obs, n_steps)
                check_finite("action", actions, n_steps)
                clipped_actions = to_env(actions)
                new_obs, rewards, dones, infos = env.step(clipped_actions)
                self.num_timesteps += env.num_envs
                callback.update_locals(locals())
                if not callback.on_step():
                    self._last_obs, self._last_episode_starts = new_obs, np.array(dones)
                    return False
                self._update_info_buffer(infos, dones)
                check_finite("reward", rewards, n_steps, self._vec_normalize_env)
                recorder.record(n_steps, actions, rewards, self._last_episode_starts, infos, dones)
                self._last_obs, self._last_episode_starts = new_obs, np.array(dones)
                n_steps += 1
            check_finite("observation", new_obs, n_steps, self._vec_normalize_env)  # type: ignore[arg-type]
            values, log_probs = recorder.finish(new_obs, dones)  # type: ignore[arg-type]
            self._after_rollout(env)
        except BaseException:
            self._last_obs = None
            raise
        callback.update_locals(locals())
        callback.on_rollout_end()
        self.logger.record("time/collect_seconds", time.perf_counter() - started)
        return True

    def _before_step(self, step: int) -> None:
        """For variants: called before every step of the environments."""

    def _after_rollout(self, env: VecEnv) -> None:
        """For variants: called when the buffer is full."""

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        if self.verbose >= 1:
            reason = self._why_not_deferred(self.rollout_buffer)
            print("Acting with a NumPy copy of the policy" if reason is None else f"Acting with the torch policy: {reason}")
        return result

    def _make_recorder(self, buffer: RolloutBuffer, n_steps: int, n_envs: int) -> "_Recorder":
        if self._why_not_deferred(buffer) is None:
            return _Deferred(self.policy, buffer, self.gamma, n_steps, n_envs)
        return _Immediate(self.policy, buffer, self.gamma)

    def _why_not_deferred(self, buffer: RolloutBuffer) -> str | None:
        if type(buffer) is not RolloutBuffer:
            return f"the rollout buffer is a {type(buffer).__name__}"
        if any(name in vars(buffer) or getattr(RolloutBuffer, name) is not own for name, own in _BUFFER_METHODS.items()):
            return "a method of the rollout buffer is patched"
        return why_not_numpy(self.policy) or why_not_layers(critic_layers(self.policy))

    def _env_actions(self) -> Callable[[np.ndarray], np.ndarray]:
        """How actions are put within the bounds of the space: squashed ones are scaled to them, others clipped."""
        if not isinstance(self.action_space, spaces.Box):
            return lambda actions: actions
        if self.policy.squash_output:
            return self.policy.unscale_action
        low, high = self.action_space.low, self.action_space.high
        return lambda actions: np.minimum(np.maximum(actions, low), high)


def _check_buffer(buffer: RolloutBuffer, n_steps: int, obs: Obs) -> None:
    """Whether SB3's own buffer has room for the rollout, and a dtype that keeps the observations as they are."""
    if not keeps_sb3_layout(buffer):
        return
    if n_steps != buffer.buffer_size:
        raise ValueError(
            f"`n_steps` is {n_steps}, but the rollout buffer was made for {buffer.buffer_size}; "
            f"to change it, save the model and load it with `n_steps={n_steps}`"
        )
    stored = buffer.observations if isinstance(buffer.observations, dict) else {"": buffer.observations}
    for key, seen in obs.items() if isinstance(obs, dict) else [("", obs)]:
        dtype = stored[key].dtype
        if seen.dtype.kind == "f" and dtype.kind in "iub" and np.any(seen != np.trunc(seen)):
            of = f" of {key!r}" if key else ""
            raise ValueError(
                f"observations{of} have fractions, but their space says {dtype}, so that the rollout buffer would not "
                "keep them; give the space a float dtype (for VecNormalize: that of the environment it wraps)"
            )


class _Recorder(Protocol):
    """How a rollout is acted and written down."""

    def act(self, obs: Obs, step: int) -> tuple[np.ndarray, th.Tensor, th.Tensor]:
        """
        :return: actions, values and log-probs of the step; the latter two may be NaN until :meth:`finish`
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


class _Immediate:
    """SB3's way, for any policy and any buffer: values and log-probs with every action, ``add`` every step."""

    def __init__(self, policy: ActorCriticPolicy, buffer: RolloutBuffer, gamma: float) -> None:
        self._policy = policy
        self._buffer = buffer
        self._gamma = gamma

    def act(self, obs: Obs, step: int) -> tuple[np.ndarray, th.Tensor, th.Tensor]:
        # copied: a VecEnv may write the next observation into the same array
        self._obs = {key: np.array(value) for key, value in obs.items()} if isinstance(obs, dict) else np.array(obs)
        with th.no_grad():
            actions, self._values, self._log_probs = self._policy(obs_as_tensor(self._obs, self._policy.device))
        return actions.cpu().numpy(), self._values, self._log_probs

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


class _Deferred:
    """For a plain policy and SB3's own buffer: acts in NumPy, writes rows, and asks the critic once at the end."""

    def __init__(self, policy: ActorCriticPolicy, buffer: RolloutBuffer, gamma: float, n_steps: int, n_envs: int) -> None:
        self._policy = policy
        self._buffer = buffer
        self._gamma = gamma
        self._actor = NumpyActor(policy, n_steps, n_envs)
        self._predict = value_function(policy)
        self._unknown_values = th.full((n_envs, 1), th.nan)
        self._unknown_log_probs = th.full((n_envs,), th.nan)
        self._timeouts: list[tuple[int, int]] = []
        self._terminal_obs: list[np.ndarray] = []

    def act(self, obs: Obs, step: int) -> tuple[np.ndarray, th.Tensor, th.Tensor]:
        assert isinstance(obs, np.ndarray)
        self._buffer.observations[step] = obs.reshape(self._buffer.observations.shape[1:])
        actions = self._actor.act(obs, step)
        check_finite("action distribution", self._actor.outputs[step], step)
        return actions, self._unknown_values, self._unknown_log_probs

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

    def finish(self, last_obs: Obs, dones: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        buffer = self._buffer
        rows = buffer.observations.reshape(-1, *buffer.obs_shape)
        actions = th.from_numpy(buffer.actions.reshape(len(rows), -1)).float()
        if isinstance(self._policy.action_space, spaces.Discrete):
            actions = actions.flatten()
        with th.no_grad():
            log_probs = self._actor.log_probs(actions)
        buffer.values[:] = self._predict(rows).reshape(buffer.values.shape)
        buffer.log_probs[:] = log_probs.numpy().reshape(buffer.log_probs.shape)
        for step in range(len(buffer.values)) if not np.isfinite(buffer.values.sum() + buffer.log_probs.sum()) else ():
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
