"""The loop that steps the environments with the current policy and fills the rollout buffer."""

import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_trpo.actor.plain_policy import HookReason, Reason
from sb3_trpo.actor.plain_recurrent import PlainRecurrentPolicy
from sb3_trpo.arguments.hyperparameters import warn_user
from sb3_trpo.batch.from_buffer import keeps_sb3_layout
from sb3_trpo.batch.whole import Share
from sb3_trpo.distributions.squashed import without_samples
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.rollout.arrays import in_numpy, step_in_numpy
from sb3_trpo.rollout.finite_checks import check_finite
from sb3_trpo.rollout.frozen_statistics import FrozenStatistics
from sb3_trpo.rollout.observation_checks import ObservationCheck
from sb3_trpo.rollout.policy_changes import PolicyWatch
from sb3_trpo.rollout.recorders import DeferredRecorder, ImmediateRecorder, Recorder, fast_policy
from sb3_trpo.rollout.recurrent_recorder import RecurrentRecorder
from sb3_trpo.rollout.report import Ended, RolloutReport, all_ended, total_counts
from sb3_trpo.step.workers import ALONE, Workers


class RolloutCollector(OnPolicyAlgorithm):
    """
    ``OnPolicyAlgorithm`` with a faster and stricter ``collect_rollouts``.

    Callbacks find ``obs_tensor``, ``new_obs``, ``rewards``, ``dones``, ``infos``, ``actions``, ``clipped_actions``,
    ``values``, ``log_probs``, ``n_steps`` and ``rollout_buffer`` among the locals, as in SB3, and ``action_masks``, which is
    None if all actions are possible. Where values and log-probabilities are deferred, ``values`` and ``log_probs`` are NaN
    tensors of the right shape until the rollout ends.
    """

    interface_class: ClassVar[type[PolicyInterface]] = PolicyInterface
    """Class through which the policy is called; policies that need more than observations need a subclass."""
    workers: Workers = ALONE
    """The processes that share the run."""
    _share: Share | None = None
    """This worker's environments among those of all; None: it has all."""
    _interface: PolicyInterface | None = None
    _frozen: FrozenStatistics | None = None
    """The statistics of ``VecNormalize``, if they stay as they are during a rollout."""
    _last_obs: Any
    _warned_of_hooks = False
    _ended: list[Ended]
    _counts: Counter[str]
    _steps_before: int

    @property
    def interface(self) -> PolicyInterface:
        """Return the interface through which the package calls the policy."""
        previous = self._interface
        if previous is None or previous.policy is not self.policy:
            self._interface = self.interface_class(self.policy)
            if previous is not None:
                self._interface.take_over(previous)
            return self._interface
        return previous

    @property
    def share(self) -> Share:
        """Return this worker's environments among those of all."""
        return Share.of(self.n_envs) if self._share is None else self._share

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        Fill the buffer with the current policy.

        After an exception, Ctrl-C included, the model can be used and saved, and the next ``learn`` resets the environments.
        (A ``SubprocVecEnv`` that was interrupted in a step cannot be reset: make a new one.)

        :param env: the training environments
        :param callback: called at every step, and at the rollout's start and end
        :param rollout_buffer: the buffer to fill
        :param n_rollout_steps: number of steps of each environment
        :return: False if the callback of a worker stopped the training
        :raises ValueError: if a number is not finite, or an observation contradicts its space
        :raises RuntimeError: if there is no observation to begin with, or another worker has failed
        """
        started, n_steps = time.perf_counter(), 0
        self._prepare_rollout(env, callback, rollout_buffer, n_rollout_steps)
        assert self._last_episode_starts is not None
        check_observations = ObservationCheck(self.observation_space, env.num_envs, rollout_buffer, self._vec_normalize_env)
        recorder, to_env = self._make_recorder(env, rollout_buffer, n_rollout_steps), self._env_actions()
        watch, step, n_all = PolicyWatch(self.policy, callback), self._observed_step(env), self.share.total
        try:
            while n_steps < n_rollout_steps:
                self._renew_noise(env, n_steps)
                check_observations(self._last_obs, n_steps)
                self._before_step(n_steps)
                if watch.changed(self.policy):
                    recorder.hand_over(n_steps)
                    recorder, to_env = self._immediate_recorder(env, rollout_buffer), self._env_actions()
                    watch = PolicyWatch(self.policy, callback)
                obs_tensor, actions, values, log_probs = recorder.act(self._last_obs, self._last_episode_starts, n_steps)
                action_masks = recorder.action_masks
                check_finite("action", actions, n_steps)
                clipped_actions = to_env(actions)
                new_obs, rewards, dones, infos = step(clipped_actions)
                self._counts["env_steps"] += env.num_envs
                self.num_timesteps += n_all
                self._update_locals(callback, locals())
                if self._stops(callback):
                    return self._abandon(recorder, new_obs, dones)
                check_finite("reward", rewards, n_steps, self._vec_normalize_env)
                self._update_info_buffer(infos, dones)
                recorder.record(n_steps, actions, rewards, self._last_episode_starts, infos, dones)
                self._last_obs, self._last_episode_starts = new_obs, np.array(dones)
                n_steps += 1
            check_observations(new_obs, n_steps)
            values, log_probs = recorder.finish(new_obs, dones)  # type: ignore[arg-type]
            self._after_rollout(env)
            if not self._agree_to_go_on(stopped=False):
                return False
        except BaseException:
            self._last_obs = None
            raise
        self._update_locals(callback, locals())
        callback.on_rollout_end()
        self.logger.record("time/collect_seconds", time.perf_counter() - started)
        return True

    def _prepare_rollout(self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_steps: int) -> None:
        """Check that there is an observation and a buffer that fits, empty the buffer, and draw gSDE's noise."""
        if self._last_obs is None or self._last_episode_starts is None:
            raise RuntimeError("`collect_rollouts` needs the present observation, which `learn` reads: call `learn`")
        _check_buffer(rollout_buffer, n_steps=n_steps, gamma=self.gamma, gae_lambda=self.gae_lambda)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        if self.use_sde:
            self._share_generators()
            self.interface.reset_noise(env.num_envs, self.share)
        callback.on_rollout_start()
        self._begin_rollout(callback)
        self._share_generators()
        self._begin_counting()

    def _begin_counting(self) -> None:
        """Count from here what the workers exchange at the end of the rollout."""
        self._ended, self._counts, self._steps_before = [], Counter(), self.num_timesteps

    def _renew_noise(self, env: VecEnv, step: int) -> None:
        """Draw new noise matrices of gSDE, if it is time to."""
        if self.use_sde and self.sde_sample_freq > 0 and step % self.sde_sample_freq == 0:
            self.interface.reset_noise(env.num_envs, self.share)

    def _abandon(self, recorder: Recorder, new_obs: Any, dones: np.ndarray) -> bool:
        """End the rollout after a step that is not recorded, together with the other workers."""
        recorder.abandon()
        self._last_obs, self._last_episode_starts = new_obs, np.array(dones)
        return self._agree_to_go_on(stopped=True)

    def _share_generators(self) -> None:
        """Draw as the first worker would, so that all of them draw the same numbers for the environments of all."""
        if self.workers.size == 1:
            return
        state = th.get_rng_state()
        self.workers.broadcast([state])
        th.set_rng_state(state)
        if self.device.type == "cuda":
            state = th.cuda.get_rng_state(self.device)
            self.workers.broadcast([state])
            th.cuda.set_rng_state(state, self.device)

    def _immediate_recorder(self, env: VecEnv, buffer: RolloutBuffer) -> Recorder:
        """Make a recorder whose policy draws for this worker's environments alone, so each worker needs other numbers."""
        if self.workers.rank > 0 and not self.use_sde:  # of gSDE, the noise of all environments is drawn
            th.manual_seed(zlib.crc32(th.get_rng_state().numpy().tobytes()) + self.workers.rank)
        return ImmediateRecorder(self.interface, buffer, env, self.gamma)

    def _stops(self, callback: BaseCallback) -> bool:
        """Call the callback; tell whether it, or that of another worker, stops the training."""
        if callback.on_step():
            return self.workers.asked_to_stop()
        self.workers.ask_to_stop()
        return True

    def _agree_to_go_on(self, stopped: bool) -> bool:
        """
        Exchange the results of a rollout: env steps, episodes, statistics, and whether a callback has stopped the training.

        :param stopped: whether this worker's rollout ended early
        :return: whether no worker's rollout ended early
        """
        moments = [] if self._frozen is None else self._frozen.gathered()
        reports = self.workers.gather(RolloutReport(stopped, self._counts, self._ended, moments))
        if self._frozen is not None:
            self._frozen.merge([report.moments for report in reports])
        if self.workers.size > 1:
            self._receive_counts(total_counts(reports))
            for ended in all_ended(reports):
                super()._update_info_buffer([ended.info], np.array([ended.done]))
        return not any(report.stopped for report in reports)

    def _receive_counts(self, counts: Counter[str]) -> None:
        """Take note of what all workers have done in the rollout; a subclass may count more."""
        self.num_timesteps = self._steps_before + counts["env_steps"]

    def _update_locals(self, callback: BaseCallback, found: dict[str, Any]) -> None:
        """Give the callback the local variables, and what a subclass adds to them."""
        callback.update_locals(found)
        further = self._callback_locals()
        if further:
            callback.update_locals(further)

    def _observed_step(self, env: VecEnv) -> Callable[[np.ndarray], VecEnvStepReturn]:
        """Make the function that steps the environments and lets the source of the action masks know."""
        source, in_arrays = self.interface.mask_source, step_in_numpy(env)
        if source is None:
            return in_arrays

        def step(actions: np.ndarray) -> VecEnvStepReturn:
            try:
                new_obs, rewards, dones, infos = in_arrays(actions)
            except Exception as error:
                source.explain(error, actions)
                raise
            source.observe(infos, dones)
            return new_obs, rewards, dones, infos

        return step

    def _begin_rollout(self, callback: BaseCallback) -> None:
        """
        Do what a subclass needs before the first step of a rollout.

        :param callback: the callback that holds all others
        """

    def _before_step(self, step: int) -> None:
        """Do what a subclass needs before every step of the environments."""

    def _callback_locals(self) -> dict[str, Any]:
        """Return what callbacks find among the locals in addition."""
        return {}

    def _after_rollout(self, env: VecEnv) -> None:
        """Do what a subclass needs when the buffer is full."""

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        self._last_obs = in_numpy("observations", self._last_obs)
        if self.verbose >= 1:
            plain = fast_policy(self.interface, self.rollout_buffer)
            slow = f"Fast NumPy rollout not available, acting with the PyTorch policy: {plain}"
            print(slow if isinstance(plain, Reason) else "Fast NumPy rollout enabled")
        return result

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        # of many environments, few end an episode at a step, and SB3 asks every info four questions
        notable = [
            i for i, info in enumerate(infos) if "episode" in info or ("is_success" in info and dones is not None and dones[i])
        ]
        if not notable:
            return
        if self.workers.size == 1:
            super()._update_info_buffer([infos[i] for i in notable], None if dones is None else dones[notable])
            return
        step = self._counts["env_steps"] // self.n_envs
        for i in notable:
            entries: dict[str, Any] = {name: infos[i][name] for name in ("episode", "is_success") if name in infos[i]}
            self._ended.append(Ended(step, self.share.first + i, entries, dones is not None and bool(dones[i])))

    def _warn_of_hooks(self, reason: HookReason) -> None:
        """Warn once that the policy is slow because of hooks, not because of its class."""
        if not self._warned_of_hooks:
            warn_user(
                f"Hooks slow this run down several times, because torch must compute all that NumPy could: {reason.hooks}. "
                "If they watch gradients, as `WandbCallback(gradient_save_freq=...)` does, leave that out"
            )
            self._warned_of_hooks = True

    def _make_recorder(self, env: VecEnv, buffer: RolloutBuffer, n_steps: int) -> Recorder:
        plain = fast_policy(self.interface, buffer)
        if isinstance(plain, HookReason):
            self._warn_of_hooks(plain)
        if isinstance(plain, Reason):
            return self._immediate_recorder(env, buffer)
        settings = (buffer, self.gamma, n_steps, env.num_envs, self.interface.mask_source, self.share)
        if isinstance(plain, PlainRecurrentPolicy):
            assert isinstance(self.interface, RecurrentInterface)
            return RecurrentRecorder(self.interface, plain, *settings)
        return DeferredRecorder(plain, *settings)

    def _env_actions(self) -> Callable[[np.ndarray], np.ndarray]:
        """Choose how to bring actions within the bounds of the space: squashed ones are scaled, others clipped."""
        if not isinstance(self.action_space, spaces.Box):
            return lambda actions: actions
        if self.policy.squash_output:
            unscale: Callable[[np.ndarray], np.ndarray] = self.policy.unscale_action
            return lambda actions: unscale(without_samples(actions))
        low, high = self.action_space.low, self.action_space.high
        return lambda actions: np.minimum(np.maximum(actions, low), high)


def _check_buffer(buffer: RolloutBuffer, **settings: float) -> None:
    """Refuse an SB3 buffer that was made for other settings."""
    if not keeps_sb3_layout(buffer):
        return
    made_for: dict[str, float] = {"n_steps": buffer.buffer_size}
    if type(buffer) in (RolloutBuffer, DictRolloutBuffer):  # a custom one may have others
        made_for |= {"gamma": buffer.gamma, "gae_lambda": buffer.gae_lambda}
    for name, made in made_for.items():
        if settings[name] != made:
            raise ValueError(
                f"`{name}` is {settings[name]}, but the rollout buffer was made for {made}; "
                f"to change it, save the model and load it with `{name}={settings[name]}`"
            )
