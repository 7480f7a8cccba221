"""Vine sampling: TRPO that branches from states of its trajectories and estimates Q-values with short rollouts."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal, Never

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.actor.plain_policy import Reason
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States, concatenate
from sb3_trpo.checks import check_integers, described, is_integer
from sb3_trpo.distributions.validation import unchecked_distributions
from sb3_trpo.policies.interface import Obs
from sb3_trpo.rollout.bootstrap import numpy_values, terminal_observations, timeouts, torch_values
from sb3_trpo.rollout.finite_checks import check_finite
from sb3_trpo.rollout.numpy_actor import NumpyActor, numpy_actor
from sb3_trpo.rollout.observation_checks import check_shapes
from sb3_trpo.rollout.recorders import fast_policy
from sb3_trpo.rollout.torch_actor import torch_act
from sb3_trpo.snapshots.replay_check import check_replay
from sb3_trpo.snapshots.simulator import Simulator, Snapshot

_MOST_ACTIONS = 18
"""Largest Discrete space in which all actions are tried by default."""
_SAMPLED_ACTIONS = 4
"""Number of actions drawn by default in any other space."""
_ARGUMENTS_OF_TRPO = inspect.signature(TRPO).parameters.keys() - {"unsupported"}
_TRUNK_PER_BRANCH = 32
"""States of the trunk for each branching state, by default."""


@dataclass(frozen=True)
class VineBatch(Batch):
    """
    Holds N branching states with K actions each. The inherited ``actions`` are one draw from π_old in each state.

    :param old_log_prob: log-probabilities of the branches' actions, shape (N, K), nats
    :param advantages: Q-values minus their mean over the branches of the state, shape (N, K)
    :param returns: Q-values, shape (N, K)
    :param branch_actions: first actions of the branches, shape (N, K), or (N, K, d)
    :param branch_weights: weights before importance sampling, shape (N, K): 1 for sampled actions, π_old if all actions are
        tried; 0 leaves a branch out
    """

    branch_actions: th.Tensor = field(kw_only=True)
    branch_weights: th.Tensor = field(kw_only=True)

    def surrogate_terms(self, distribution: Distribution) -> tuple[th.Tensor, th.Tensor]:
        """
        Estimate means over the actions of each state by self-normalised importance sampling.

        With all actions, the estimate is the exact sum over them.

        Source: equations 15 and 16 of the paper (https://arxiv.org/abs/1502.05477).

        :param distribution: π_θ at the N states
        :return: for each state, estimates of the mean of Q and of the mean of -log π_θ, each of shape (N,)
        """
        log_prob = th.stack([distribution.log_prob(actions) for actions in self.branch_actions.unbind(1)], dim=1)
        log_prob, old = (
            th.where(self.branch_weights > 0.0, part, 0.0) for part in (log_prob, self.old_log_prob)
        )  # where the weight is 0 it may be -inf
        weights = self.branch_weights * th.exp(log_prob - old)
        weights = weights / weights.sum(dim=1, keepdim=True)
        return (weights * self.advantages).sum(dim=1), -(weights * log_prob).sum(dim=1)


class VineTRPO(TRPO):
    """
    Runs TRPO with vine sampling.

    The policy runs as in :class:`~sb3_trpo.TRPO`. These steps form the trunk and train the critic. In some states of the
    trunk, the simulator tries several actions. The policy follows each of them for some steps, and the critic's value
    stands for the rest. All actions of a state see the same random numbers. The policy step uses these states alone.

    Branch steps count towards ``total_timesteps``. Callbacks are called at trunk steps. The branches leave no trace in the
    state and the statistics of the environments.

    Source: section 5.2 of the paper (https://arxiv.org/abs/1502.05477).

    :param policy: the policy to use
    :param env: an environment that :mod:`sb3_trpo.snapshots.simulator` can save and restore

    All other arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO` are arguments here too, in the same order. The new ones
    are given by name:

    :param n_branch_states: branching states per rollout, rounded up to a multiple of the number of environments; None: one
        for every 32 states of the trunk
    :param n_branch_actions: actions tried in each branching state: a number of draws from the policy, or "all" for a Discrete
        space; None: all actions of a Discrete space with at most 18, otherwise 4
    :param branch_length: env steps of a branch, including its first action
    :param n_branch_rollouts: rollouts that are averaged for the Q-value of one action. Each has different random numbers,
        also in environments that draw from their ``np_random``
    :raises ValueError: if a hyperparameter is out of range or an environment cannot be restored; the message names it
    """

    extra_arguments = ("n_branch_states", "n_branch_actions", "branch_length", "n_branch_rollouts")

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule | str = 1e-3,
        n_steps: int | None = None,
        batch_size: int = 128,
        gamma: float = 0.99,
        cg_max_steps: int = 10,
        cg_damping: float | None = None,
        line_search_shrinking_factor: float = 0.8,
        line_search_max_iter: int = 10,
        n_critic_updates: int = 10,
        gae_lambda: float = 0.95,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        target_kl: float | Schedule | str | None = None,
        sub_sampling_factor: int = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        n_branch_states: int | None = None,
        n_branch_actions: int | Literal["all"] | None = None,
        branch_length: int = 16,
        n_branch_rollouts: int = 1,
        fisher_sample_fraction: float | None = None,
        cg_tol: float = 0.005,
        line_search_accept_ratio: float = 0.0,
        ent_coef: float | Schedule | str = 0.0,
        max_grad_norm: float | None = None,
        chunk_size: int | None = None,
        clipped_gaussian: bool = False,
        normalize_observations: bool = True,
        normalize_returns: bool = True,
        scale_target_kl: bool = True,
        distributed: bool = False,
        freeze_normalization: bool | None = None,
        **unsupported: Never,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name in _ARGUMENTS_OF_TRPO}
        super().__init__(**{**arguments, "_init_setup_model": False}, **unsupported)
        self.n_branch_states = n_branch_states
        self.n_branch_actions = n_branch_actions
        self.branch_length = branch_length
        self.n_branch_rollouts = n_branch_rollouts
        self.trunk_steps = 0
        self.branch_steps = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        if self.num_timesteps == 0:
            self.trunk_steps = self.branch_steps = 0
        return result

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None:
            self._simulator = self._checked_simulator(self.env)

    def _checked_simulator(self, env: VecEnv) -> Simulator:
        """
        Make a simulator and check that restored environments repeat themselves.

        :param env: the training environments, reset or not
        :return: the simulator
        :raises ValueError: if an environment cannot be restored
        """
        simulator, to_env, training, seeds = Simulator(env), self._env_actions(), self.policy.training, count()

        def act(observations: Any) -> np.ndarray:  # with the policy, which may rule out actions that an environment refuses
            nobody = np.zeros(env.num_envs, dtype=bool)
            check_shapes(observations, self.observation_space, env.num_envs, 0)
            with _random_numbers(next(seeds), self.policy.device):
                return to_env(self._torch_actions(env, _without_bad_rows(observations, nobody), nobody, 1))

        self.policy.set_training_mode(False)
        try:
            check_replay(simulator, act)
        finally:
            self.policy.set_training_mode(training)
        return simulator

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check_integers(1, branch_length=self.branch_length, n_branch_rollouts=self.n_branch_rollouts)
        self._check_branch_actions()
        n_envs, states = self._n_envs_of_all, self.n_branch_states
        if states is not None and not is_integer(states, 1):
            raise ValueError(f"`n_branch_states` must be None or an integer >= 1, not {described(states)}")
        if states is not None and n_envs is not None and states > self.n_steps * n_envs:
            raise ValueError(f"`n_branch_states` must be at most `n_steps * n_envs` = {self.n_steps * n_envs}, not {states}")

    def _check_branch_actions(self) -> None:
        actions, discrete = self.n_branch_actions, isinstance(self.action_space, spaces.Discrete)
        if actions is None or (actions == "all" and discrete):
            return
        # a single action could not be compared with another
        if actions == "all" or not is_integer(actions, 2):
            allowed = "None, 'all' or an integer >= 2" if discrete else f"None or an integer >= 2 (for {self.action_space})"
            raise ValueError(f"`n_branch_actions` must be {allowed}, not {described(actions)}")

    def _excluded_save_params(self) -> list[str]:
        own = ["_branch_steps_before", "_branching_steps", "_branching_states", "_snapshots", "_simulator", "_branches"]
        return [*super()._excluded_save_params(), *own]

    def collect_rollouts(self, env: VecEnv, *args: Any, **kwargs: Any) -> bool:
        """
        Collect the trunk, then the branches.

        :param env: the training environments
        :param args: see :meth:`~sb3_trpo.rollout.collector.RolloutCollector.collect_rollouts`
        :param kwargs: see there
        :return: False if the callback stopped the training
        :raises ValueError: if an environment cannot be restored or a number is not finite
        """
        n_envs = self.share.total
        n_states = self.n_branch_states or self.n_steps * n_envs // _TRUNK_PER_BRANCH
        n_times = max(1, -(-n_states // n_envs))
        steps = self._generator(0).choice(self.n_steps, n_times, replace=False)
        self._branching_steps = np.sort(steps)
        self._branching_states: list[States] = []
        self._snapshots: list[Snapshot] = []
        if not (hasattr(self, "_simulator") and self._simulator.is_of(env)):  # the environment was set later
            self._simulator = self._checked_simulator(env)
        before, self._branch_steps_before = self.num_timesteps - self.branch_steps, self.branch_steps
        try:
            return super().collect_rollouts(env, *args, **kwargs)
        finally:  # a callback may have stopped the rollout halfway
            self.trunk_steps += self.num_timesteps - self.branch_steps - before
            self.logger.record("rollout/trunk_steps", self.trunk_steps)
            self.logger.record("rollout/branch_steps", self.branch_steps)

    def _receive_counts(self, counts: Counter[str]) -> None:
        super()._receive_counts(counts)
        self.branch_steps = self._branch_steps_before + counts["branch_steps"]

    def _generator(self, purpose: int) -> np.random.Generator:
        """Make a generator that depends only on the seed and the update, so that a resumed run draws the same numbers."""
        return np.random.default_rng((self._draw_seed, self._n_updates, purpose))

    def _fisher_seed(self) -> tuple[int, ...]:
        return *super()._fisher_seed(), 2  # differs from the purposes above: zeros at the end of a seed do not count

    def _before_step(self, step: int) -> None:
        n_saved = len(self._snapshots)
        if n_saved < len(self._branching_steps) and step == self._branching_steps[n_saved]:
            self._snapshots.append(self._simulator.save())
            self._branching_states.append(self._present_states())

    def _after_rollout(self, env: VecEnv) -> None:
        states = concatenate(self._branching_states)  # ordered by step and then by environment
        seeds = self._generator(1).integers(2**31, size=(len(self._snapshots) + 1, self.n_branch_rollouts)).tolist()
        with self._own_random_numbers(seeds[-1][0]):
            drawn, actions, log_prob, weights = self._draw_actions(states)
        with self._simulator.excursion() as branch_env:
            q_values = self._q_values(branch_env, _possible(actions, weights), seeds)
        self._snapshots, self._branching_states = [], []
        self._branches = _make_batch(states, drawn, actions, log_prob, weights, q_values)

    def _present_states(self) -> States:
        """Copy the states that the environments are in, shaped as in the rollout buffer."""
        shape: Any = self.rollout_buffer.obs_shape
        obs = copy.deepcopy(self._last_obs)
        rows: Obs
        if isinstance(shape, dict):
            rows = {key: obs[key].reshape(-1, *shape[key]) for key in shape}
        else:
            rows = obs.reshape(-1, *shape)
        assert self._last_episode_starts is not None
        return self.interface.present(rows, self._simulator.env, self._last_episode_starts)

    def _draw_actions(self, states: States) -> tuple[th.Tensor, th.Tensor, th.Tensor, th.Tensor]:
        """
        Draw the actions to try in the branching states.

        :param states: N branching states
        :return: one draw from the policy per state, shape (N, ...); K actions per state, shape (N, K, ...); their
            log-probabilities and their weights, each of shape (N, K)
        """
        choice = self.n_branch_actions
        n_actions = int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else 0
        every = choice == "all" or (choice is None and 0 < n_actions <= _MOST_ACTIONS)
        n_states = len(self._branching_steps) * self.n_envs
        with th.no_grad(), unchecked_distributions():
            distribution = self.interface.distribution(states)
            if every:
                drawn = self._sample(distribution, n_states)
                columns = [th.full_like(drawn, k) for k in range(n_actions)]
            else:
                columns = [self._sample(distribution, n_states) for _ in range(int(choice or _SAMPLED_ACTIONS))]
                drawn = columns[0]
            log_prob = th.stack([distribution.log_prob(column) for column in columns], dim=1)
        return drawn, th.stack(columns, dim=1), log_prob, log_prob.exp() if every else th.ones_like(log_prob)

    def _sample(self, distribution: Distribution, n_states: int) -> th.Tensor:
        # with gSDE, the actions depend only on the state until the noise is drawn anew
        return self.interface.sample(distribution, n_states if self.use_sde else None)

    def _q_values(self, env: VecEnv, actions: th.Tensor, seeds: list[list[int]]) -> np.ndarray:
        """
        Estimate the Q-value of every action by rollouts from its state.

        :param env: environments that may be restored and stepped freely
        :param actions: first actions, shape (N, K, ...), ordered by step and then by environment
        :param seeds: a seed for each rollout of each branching step
        :return: Q-values, shape (N, K)
        """
        plain = fast_policy(self.interface, self.rollout_buffer)
        value = partial(torch_values, self.interface) if isinstance(plain, Reason) else _of_all_envs(numpy_values(plain))
        steps: list[int] = self._branching_steps.tolist()
        n_times, n_actions = len(steps), actions.shape[1]
        first = actions.cpu().numpy().reshape(n_times, env.num_envs, n_actions, *(self.action_space.shape or ()))
        q_values = np.zeros((n_times, env.num_envs, n_actions))
        for time, snapshot in enumerate(self._snapshots):
            for repeat, seed in enumerate(seeds[time]):
                with _random_numbers(seed, self.policy.device):
                    size = self.branch_length, env.num_envs, self.share
                    actor = None if isinstance(plain, Reason) else numpy_actor(plain, *size)
                for k in range(n_actions):
                    self._simulator.restore(snapshot, None if repeat == 0 else seed, self.share.first)
                    with self._own_random_numbers(seed):  # the same for all actions of a state
                        q_values[time, :, k] += self._branch(env, first[time, :, k], actor, value, steps[time])
            check_finite("Q-value", q_values[time], steps[time])
        return q_values.reshape(-1, n_actions) / self.n_branch_rollouts

    def _branch(
        self,
        env: VecEnv,
        actions: np.ndarray,
        actor: NumpyActor | None,
        value: Callable[[Any, Sequence[int]], np.ndarray],
        trunk_step: int,
    ) -> np.ndarray:
        """
        Take an action, follow the policy, and end with the critic's value.

        :param env: environments in the branching state
        :param actions: first actions, shape (n_envs, ...)
        :param actor: draws the later actions; None: the torch policy draws them
        :param value: function from observations, and the indices of their environments, to values
        :param trunk_step: step of the rollout at which the branch starts, for messages
        :return: discounted returns, shape (n_envs,)
        """
        to_env = self._env_actions()
        returns, discount, alive = np.zeros(env.num_envs), 1.0, np.ones(env.num_envs, dtype=bool)
        observations: Any = None
        dones = ~alive
        for step in range(self.branch_length):
            if step > 0:
                observations = _without_bad_rows(observations, alive)
                check_finite(f"observation {step} steps into the branch", observations, trunk_step)
                if actor is None:
                    actions = self._torch_actions(env, observations, dones, step, trunk_step)
                else:
                    actions = actor.act(observations, step)
            observations, rewards, dones, infos = env.step(to_env(actions))
            check_shapes(
                observations,
                self.observation_space,
                env.num_envs,
                trunk_step,
                f"observations {step + 1} steps into the branch",
            )
            self.num_timesteps += env.num_envs
            self.branch_steps += env.num_envs
            self._counts.update(env_steps=env.num_envs, branch_steps=env.num_envs)
            returns += np.where(alive, discount * rewards, 0.0)  # NaN * False is NaN
            discount *= self.gamma
            ended = timeouts(infos, dones & alive)
            if ended:
                returns[ended] += discount * value(
                    terminal_observations(infos, ended, trunk_step, self.observation_space), ended
                )
            alive &= ~dones
            if not alive.any():
                return returns
        values = value(_without_bad_rows(observations, alive), range(env.num_envs))
        return np.where(alive, returns + discount * values, returns)

    def _own_random_numbers(self, seed: int) -> AbstractContextManager[None]:
        """Seed torch's generators for draws that each worker makes for its own environments alone."""
        return _random_numbers(seed + self.workers.rank * 2**32, self.policy.device)

    def _torch_actions(self, env: VecEnv, observations: Any, starts: np.ndarray, step: int, trunk_step: int = 0) -> np.ndarray:
        if self.use_sde and (step == 1 or (self.sde_sample_freq > 0 and step % self.sde_sample_freq == 0)):
            self.interface.reset_noise(self.n_envs)
        states = self.interface.present(observations, env, starts)
        return torch_act(self.interface, states, trunk_step).actions.cpu().numpy()

    def _policy_batch(self, rollout: Batch) -> Batch:
        return self._branches


def _of_all_envs(value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any, Sequence[int]], np.ndarray]:
    """Let a value function that depends on observations alone take the indices of the environments too."""
    return lambda observations, _: value(observations)


def _possible(actions: th.Tensor, weights: th.Tensor) -> th.Tensor:
    """
    Replace actions without weight, because a policy may rule out actions that an environment does not accept.

    :param actions: first actions, shape (N, K, ...)
    :param weights: weights of the actions, shape (N, K)
    :return: the actions, with the likeliest action of the state in place of each action without weight
    """
    likeliest = actions[th.arange(len(actions)), weights.argmax(dim=1)]
    keep = (weights > 0.0).reshape(*weights.shape, *[1] * (actions.dim() - 2))
    return th.where(keep, actions, likeliest[:, None])


def _make_batch(
    states: States,
    drawn: th.Tensor,
    actions: th.Tensor,
    log_prob: th.Tensor,
    weights: th.Tensor,
    q_values: np.ndarray,
) -> VineBatch:
    q = th.as_tensor(q_values, dtype=th.float32, device=log_prob.device)
    gaps = q - q[:, :1]  # equal Q-values must stay equal to the last bit
    mean = (weights * gaps).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    return VineBatch(
        states=states,
        actions=drawn,
        old_log_prob=log_prob,
        advantages=gaps - mean,  # the self-normalised estimator does not depend on a constant per state
        returns=q,
        branch_actions=actions,
        branch_weights=weights,
    )


@contextmanager
def _random_numbers(seed: int, device: th.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of the device; put their old states back at the end."""
    generators = [th.default_generator]
    if device.type == "cuda":
        generators.append(th.cuda.default_generators[th.cuda.current_device() if device.index is None else device.index])
    before = [generator.get_state() for generator in generators]  # th.manual_seed would seed those of all devices
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _without_bad_rows(observations: Any, alive: np.ndarray) -> Any:
    """
    Replace observations that are not finite by zeros if the branch of their environment is over.

    Such an environment is still stepped together with the others.

    :param observations: array of shape (n_envs, ...), or a dict of such arrays
    :param alive: whether the branch of each environment goes on, shape (n_envs,)
    :return: the observations; a new array if a row was replaced
    """
    if alive.all():
        return observations
    if isinstance(observations, dict):
        return {key: _without_bad_rows(rows, alive) for key, rows in observations.items()}
    bad = ~alive & ~np.isfinite(observations).reshape(len(observations), -1).all(axis=1)
    if not bad.any():
        return observations
    return np.where(bad.reshape(-1, *[1] * (observations.ndim - 1)), observations.dtype.type(0), observations)
