"""The class TRPO: Stable-Baselines3's on-policy interface around the trust-region step."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Never, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_trpo.actor.choose import actor_network, plain_policy
from sb3_trpo.actor.chunk_size import automatic_chunk_size
from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.actor.numpy_threads import numpy_in_one_thread
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.actor.reached_parameters import check_repeatable, reached_parameters, watched_actor
from sb3_trpo.actor.recurrence import differentiable_recurrence
from sb3_trpo.actor.torch_threads import torch_in_one_thread
from sb3_trpo.algorithms.log import Update, log_update, mean_over
from sb3_trpo.algorithms.model_files import ModelFiles
from sb3_trpo.algorithms.shared import SharedRun
from sb3_trpo.arguments.defaults import (
    default_cg_damping,
    default_fisher_fraction,
    default_n_steps,
    default_target_kl,
    set_default_std,
)
from sb3_trpo.arguments.hyperparameters import (
    SCHEDULED,
    check_hyperparameters,
    did_you_mean,
    hyperparameter_names,
    make_schedule,
    refuse_arguments,
    scheduled,
    warn_of_uneven_minibatches,
    warn_user,
)
from sb3_trpo.arguments.live_changes import InUse
from sb3_trpo.arguments.policies import check_can_learn, check_net_arch, check_policy_class, why_not_trainable
from sb3_trpo.arguments.spaces import check_actions, check_discrete, check_images, check_memory, check_observations
from sb3_trpo.batch.advantages import effective_advantages
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.from_buffer import keeps_sb3_layout, read_batch
from sb3_trpo.batch.subsets import ALL_UNITS, Subsets, every_kth, fisher_subsets, shared_permutation
from sb3_trpo.batch.whole import Whole
from sb3_trpo.checks import BOOLEAN, SEED, check, check_integers, described, integer, is_integer, optional, to_float
from sb3_trpo.distributions.action_masks import forced_fraction
from sb3_trpo.distributions.clipped_gaussian import check_clipping, clip_gaussian
from sb3_trpo.distributions.squashed import install_keeping_tanh
from sb3_trpo.envs.dead_workers import dead_workers_named
from sb3_trpo.envs.gymnasium_vector import GymnasiumVecEnv
from sb3_trpo.envs.lean_vec_env import wrap_bare_env
from sb3_trpo.policies.action_graphs import detach_action_dist
from sb3_trpo.policies.aliases import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.beta import BetaCnnPolicy, BetaMlpPolicy, BetaMultiInputPolicy
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.processes.launch import launched_rank, own_device
from sb3_trpo.rollout.finite_checks import check_returns
from sb3_trpo.rollout.foreign_arrays import foreign_arrays_named
from sb3_trpo.saving.callback_states import tree
from sb3_trpo.saving.resumable import ResumableAlgorithm
from sb3_trpo.step.problem import StepRule
from sb3_trpo.step.report import Outcome, StepReport
from sb3_trpo.step.trust_region import TrustRegionSettings, trust_region_step
from sb3_trpo.step.workers import raise_together
from sb3_trpo.update.bound_scaling import bound_scale
from sb3_trpo.update.critic import critic_parameters, fit_critic
from sb3_trpo.update.critic_epochs import FitData, make_epoch
from sb3_trpo.update.input_normalization import (
    Coordinates,
    FirstLayers,
    Inputs,
    StandardizedInputs,
    begin_standardized,
    first_layers,
)
from sb3_trpo.update.moments import RunningMoments
from sb3_trpo.update.policy_problem import PolicyProblem
from sb3_trpo.update.running_statistics import MovingStatistics, refresh_within_bound
from sb3_trpo.update.target_normalization import TargetScale, normalized_output, observe_targets, output_layer

SelfTRPO = TypeVar("SelfTRPO", bound="TRPO")

_GATHERING_SHARE = 0.1
"""Largest share of ``total_timesteps`` in which the statistics of images are gathered without policy steps."""

_WARNINGS = ("_had_single_rollout", "_warned_of_single_rollouts", "_warned_of_hooks")
"""Attributes that remember what the user was told, which are not saved."""

_STEP_SHARE = 0.5
"""Share of the KL bound that the policy step may use while running statistics move the actor; they may use the rest."""


class TRPO(ModelFiles, ResumableAlgorithm, SharedRun):
    """
    Trust Region Policy Optimization (TRPO).

    Each update maximises the linearised surrogate L(θ) subject to mean KL(π_old‖π_θ) <= ``target_kl``, expanded to second
    order. It computes the gradient, solves for the step by conjugate gradient on Fisher-vector products, and shortens the
    step by a backtracking line search. Then it fits the critic by regression.
    Paper: https://arxiv.org/abs/1502.05477.

    The arguments of sb3-contrib's TRPO keep their names and order. Some have other defaults, which suit more tasks without
    tuning; ``TRPO(policy, env, **SB3_CONTRIB_DEFAULTS)`` brings theirs back.

    :param policy: the policy to use (MlpPolicy, CnnPolicy, PaperCnnPolicy, MultiInputPolicy, BetaMlpPolicy, BetaCnnPolicy,
        BetaMultiInputPolicy, or a class)
    :param env: the environment to learn from (if registered in Gym, can be str)
    :param learning_rate: learning rate of the critic; a number, a schedule of the progress remaining (1 to 0), or RL Zoo's
        ``"lin_0.001"``, which decays to 0. In a ``learn`` that is no longer than one rollout the progress stays 1
    :param n_steps: env steps for each environment per update; the rollout has n_steps * n_envs transitions. None: 1,024
        divided by the number of environments, at least 64, rounded up to whole mini-batches of 128; the attribute is that
        number
    :param batch_size: mini-batch size of the critic
    :param gamma: discount factor
    :param cg_max_steps: largest number of Fisher-vector products of the conjugate gradient solver
    :param cg_damping: added to the diagonal of the Fisher matrix while solving; None: 0.15 for each action dimension
    :param line_search_shrinking_factor: factor by which each trial of the line search shortens the step
    :param line_search_max_iter: largest number of trials of the line search
    :param n_critic_updates: passes of the critic over the rollout per update
    :param gae_lambda: factor of Generalized Advantage Estimation; 1.0 is the paper's setting
    :param use_sde: whether to use generalized State Dependent Exploration (gSDE)
    :param sde_sample_freq: sample a new gSDE noise matrix every n steps; -1: only at the start of the rollout
    :param rollout_buffer_class: rollout buffer class; None: chosen for the observation space
    :param rollout_buffer_kwargs: keyword arguments of the rollout buffer
    :param normalize_advantage: whether to standardise the advantages
    :param target_kl: the bound δ on the mean KL(π_old‖π_θ) of an update, in nats, summed over the action dimensions;
        a number, a schedule or a string, as for ``learning_rate``. None: 0.005 for each action dimension, at least 0.01
        and at most 0.03
    :param sub_sampling_factor: take every k-th transition for the gradient and the Fisher matrix (the step is accepted
        on the whole rollout)
    :param stats_window_size: number of episodes over which the logged success rate, length and reward are averaged
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments of the policy; without ``log_std_init``, the standard policies begin with a
        standard deviation of 1 / sqrt(d) for d action dimensions, unless they use gSDE; without
        ``share_features_extractor=True``, actor and critic of CnnPolicy and MultiInputPolicy have separate features
        extractors; without ``features_extractor_class``, CnnPolicy uses :class:`~sb3_trpo.policies.NormalizedCNN`
    :param verbose: 0 no output, 1 info, 2 debug
    :param seed: seed of the pseudo random generators; None: every run differs, unless torch was seeded
    :param device: device (cpu, cuda, ...); "auto": the GPU if there is one
    :param _init_setup_model: whether to build the network at the creation of the instance
    :param fisher_sample_fraction: share of the transitions that the Fisher-vector products use, drawn anew for each update;
        None: 0.1 for images, as in appendix C.1 of the paper, but at least 100 transitions, otherwise 1; the attribute is that
        number
    :param cg_tol: relative residual at which the conjugate gradient solver stops
    :param line_search_accept_ratio: smallest share of the gain that the gradient predicts for which a step is accepted
    :param ent_coef: weight of the entropy bonus in the surrogate; a number, a schedule or a string, as for ``learning_rate``
    :param max_grad_norm: largest norm of the critic's gradient; None for no clipping
    :param chunk_size: largest number of transitions in one pass of the policy step, which bounds its memory; None: automatic
    :param clipped_gaussian: whether gradient and KL treat a Gaussian's actions beyond a bound of the action space as the
        bound, which is what the environment receives
        (:class:`~sb3_trpo.distributions.clipped_gaussian.ClippedGaussianDistribution`)
    :param normalize_observations: whether the update works in coordinates in which the first layers of actor and critic read
        standardised observations; the policy stays a plain function of the observations
        (:mod:`~sb3_trpo.update.input_normalization`). It applies to the MLP policies of ``Box`` observations
    :param normalize_returns: whether the critic is fitted to standardised returns, by rescaling its last layer before and
        after the fit (:mod:`~sb3_trpo.update.target_normalization`); its first values are then 0
    :param scale_target_kl: whether an update has a smaller bound than ``target_kl`` if the rollout's advantages vary more than
        its returns, because they are mostly the critic's errors then (:mod:`~sb3_trpo.update.bound_scaling`)
    :param distributed: whether to share the run with the other processes that ``torchrun`` has started, each with its own
        environments; without ``torchrun`` it changes nothing. ``batch_size`` and all budgets count the env steps of all
    :param freeze_normalization: whether the statistics of a ``VecNormalize`` stay as they are during a rollout and take it in
        at its end; None: if several processes share the run
    :raises ValueError: for a hyperparameter out of range, naming it
    :raises TypeError: for a policy that TRPO cannot train; for an unknown argument; for an argument of PPO the message names
        the replacement
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "PaperCnnPolicy": PaperCnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
        "BetaMlpPolicy": BetaMlpPolicy,
        "BetaCnnPolicy": BetaCnnPolicy,
        "BetaMultiInputPolicy": BetaMultiInputPolicy,
    }
    extra_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments that a subclass adds to TRPO's, by the names of their attributes."""
    supported_action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (
        spaces.Box,
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
    )
    """Action spaces that the algorithm knows."""
    source_models: ClassVar[str] = "with neither recurrence nor masks"
    """The models that :meth:`from_ppo` continues, in words."""
    step_rule: ClassVar[StepRule] = staticmethod(trust_region_step)
    """The function that takes the policy step; a subclass with another rule also overrides ``_step_settings``."""
    _had_single_rollout = False
    _warned_of_single_rollouts = False
    _progress_bars: Sequence[ProgressBarCallback] = ()
    """The progress bars of this ``learn``."""

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
        refuse_arguments(unsupported, type(self))
        check("distributed", distributed, BOOLEAN)
        first = not distributed or launched_rank() == 0
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,  # type: ignore[arg-type]
            n_steps=n_steps,  # type: ignore[arg-type]
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,  # type: ignore[arg-type]
            vf_coef=0.0,  # the critic has its own fit
            max_grad_norm=max_grad_norm,  # type: ignore[arg-type]
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log if first else None,
            policy_kwargs=policy_kwargs,
            verbose=verbose if first else 0,
            device=own_device(device) if distributed else device,
            seed=seed,
            _init_setup_model=False,
            supported_action_spaces=self.supported_action_spaces,
        )
        self.distributed = distributed
        self.freeze_normalization = freeze_normalization
        if distributed and self.env is not None:
            self._join()
        # a file has the following if there is no environment, and wrong values are refused below
        if n_steps is None and self.env is not None:
            self.n_steps = default_n_steps(self.share.total)
        if fisher_sample_fraction is None and self.env is not None and is_integer(self.n_steps, 1):
            fisher_sample_fraction = default_fisher_fraction(self.observation_space, self.n_steps * self.share.total)
        check_net_arch(self.policy_class, self.policy_kwargs)  # not of a saved model, whose networks are as they are
        self.batch_size = batch_size
        self.cg_max_steps = cg_max_steps
        self.cg_damping: float = cg_damping  # type: ignore[assignment]  # `_setup_model` fills in a None
        self.cg_tol = cg_tol
        self.line_search_shrinking_factor = line_search_shrinking_factor
        self.line_search_max_iter = line_search_max_iter
        self.line_search_accept_ratio = line_search_accept_ratio
        self.n_critic_updates = n_critic_updates
        self.normalize_advantage = normalize_advantage
        self.target_kl: float | Schedule | str = target_kl  # type: ignore[assignment]
        self.sub_sampling_factor = sub_sampling_factor
        self.fisher_sample_fraction = 1.0 if fisher_sample_fraction is None else fisher_sample_fraction
        self.chunk_size = chunk_size
        self.clipped_gaussian = clipped_gaussian
        self.normalize_observations = normalize_observations
        self.normalize_returns = normalize_returns
        self.scale_target_kl = scale_target_kl
        self.observation_moments, self.return_moments = RunningMoments(), RunningMoments()
        self.last_step: StepReport | None = None
        self._draw_seed = _peek_at_random()
        self._begin_counting()
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if not hasattr(self, "n_envs"):  # a saved model has it
            raise ValueError("`env` must be an environment or the id of one, not None")
        self._fill_in_defaults()
        own_interface = self.interface_class is not PolicyInterface
        check_policy_class(self.policy_class, self.policy_aliases, own_interface, self.why_not_policy)
        self._check_hyperparameters()
        if self._n_envs_of_all is not None:
            warn_of_uneven_minibatches(self.n_steps, self._n_envs_of_all, self.batch_size)
        check_discrete("observation_space", self.observation_space)
        check_discrete("action_space", self.action_space)
        check_actions(self.action_space)
        check_images(self.observation_space, self.policy_class, self.policy_kwargs)
        if self.env is not None and self.rollout_buffer_class in (None, RolloutBuffer, DictRolloutBuffer):  # will be filled
            check_memory(self.observation_space, self.n_steps, self.n_envs, self._extra_bytes())
        self._make_policy_and_buffer()
        set_default_std(self.policy, self.policy_kwargs)
        if self.clipped_gaussian:
            clip_gaussian(self.policy, self.interface_class.distribution_methods)
        install_keeping_tanh(self.policy)
        detach_action_dist(self.policy)
        output = output_layer(self.interface) if self.normalize_returns else None
        if isinstance(output, nn.Linear):
            nn.init.zeros_(output.weight)
        layers = first_layers(plain_policy(self.interface))
        self._initial_weights = [] if isinstance(layers, Reason) else [layer.weight.detach().clone() for layer in layers]
        self._in_use = InUse.of(self)

    def _fill_in_defaults(self) -> None:
        """Compute the settings that depend on the action space, where neither the user nor a file has them."""
        for name, default in (("target_kl", default_target_kl), ("cg_damping", default_cg_damping)):
            if getattr(self, name) is None:
                setattr(self, name, default(self.action_space))

    @classmethod
    def why_not_policy(cls, policy_class: Any) -> str | None:
        """
        Tell why this algorithm cannot train policies of a class.

        :param policy_class: any class, or anything else
        :return: the reason; None if it can
        """
        return why_not_trainable(policy_class)

    def _make_policy_and_buffer(self) -> None:
        super()._setup_model()

    def _extra_bytes(self) -> dict[str, int]:
        """Return the bytes of what a rollout stores for each transition besides SB3's arrays, by name."""
        return {}

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = make_schedule("learning_rate", self.learning_rate)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            names, nearest = ", ".join(map(repr, self.policy_aliases)), did_you_mean(policy_name, self.policy_aliases)
            if policy_name.endswith("LstmPolicy") and self.interface_class is PolicyInterface:
                nearest = "; RecurrentTRPO and MaskableRecurrentTRPO have policies with memory"
            raise ValueError(f"`policy` must be a class or one of {names}, not {policy_name!r}{nearest}")
        return self.policy_aliases[policy_name]

    @property
    def stats_window_size(self) -> int:
        """Return the number of episodes over which the log averages; a new one applies from the next ``learn``."""
        return self._stats_window_size

    @stats_window_size.setter
    def stats_window_size(self, value: int) -> None:
        self._stats_window_size = value

    def _check_hyperparameters(self) -> None:
        """Check them at construction and in ``learn``, because attributes may have been reassigned."""
        check_hyperparameters({name: getattr(self, name) for name in hyperparameter_names()}, self._n_envs_of_all)
        check_integers(1, stats_window_size=self._stats_window_size)

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise ValueError("the model has no environment to learn from: pass `env` to `load`, or call `set_env`")
        self._check_hyperparameters()
        self._in_use.refuse_changes(self)
        check_can_learn(self.policy)
        check_clipping(self.policy, self.clipped_gaussian)
        self._adopt_changes()
        if self._join_if_loaded():
            self._check_hyperparameters()  # now against the rollout of all processes
        self._begin_shared_run(total_timesteps)
        result = super()._setup_learn(total_timesteps, *args, **kwargs)
        self._progress_bars = [part for part in tree(result[1]) if isinstance(part, ProgressBarCallback)]
        if self.verbose >= 1 and self.normalize_observations:
            layers = self._first_layers(plain_policy(self.interface))
            if isinstance(layers, Reason):
                print(f"Observations are not normalised: {layers}")
        if self.ep_info_buffer is not None and self.ep_info_buffer.maxlen != self._stats_window_size:
            self.ep_info_buffer = deque(self.ep_info_buffer, self._stats_window_size)
            self.ep_success_buffer = deque(self.ep_success_buffer or (), self._stats_window_size)
        return result

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        if num_timesteps < total_timesteps or self._steps_before > self._num_timesteps_at_start:
            super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        else:  # SB3's progress is that after the rollout: 0 in every update of a `learn` that is one rollout long
            self._current_progress_remaining = 1.0
            self._warn_of_single_rollouts()

    def _warn_of_single_rollouts(self) -> None:
        """Warn once that schedules do not fall in repeated calls of ``learn`` that are one rollout long."""
        first, self._had_single_rollout = not self._had_single_rollout, True
        if first or self._num_timesteps_at_start == 0 or self._warned_of_single_rollouts:
            return
        values = {name: make_schedule(name, getattr(self, name)) for name in SCHEDULED}
        falling = [name for name, schedule in values.items() if schedule(1.0) != schedule(0.5)]
        if falling:
            warn_user(
                "`learn` is called for one rollout at a time, so every schedule keeps its first value "
                f"({', '.join(map('`{}`'.format, falling))}): a schedule falls over the rollouts of one call"
            )
            self._warned_of_single_rollouts = True

    def _adopt_changes(self) -> None:
        """Use the attributes that SB3 reads at construction only, if they were set since."""
        if self.env is not None and self.env is not self._in_use.env:
            self.set_env(maybe_make_env(self.env, self.verbose))
        if self.seed != self._in_use.seed:
            self.set_random_seed(self.seed)
            self._in_use.seed = self.seed
        self._adopt_learning_rate()

    def _adopt_learning_rate(self) -> None:
        if self.learning_rate != self._in_use.learning_rate:  # otherwise the user may have set the schedule itself
            self._setup_lr_schedule()
            self._in_use.learning_rate = self.learning_rate

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """
        Set the environment to learn from.

        :param env: an environment with the same spaces (if registered in Gym, can be str), or as many of them in a ``VecEnv``
            as before
        :param force_reset: whether the next ``learn`` must reset it
        """
        super().set_env(env, force_reset)  # type: ignore[arg-type]  # _wrap_env makes it
        self._in_use.env = self.env

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed the generators of Python, NumPy, torch, the action space and the environments, and the draws of the update.

        :param seed: the seed, an integer in [0, 2**32 - 1]; None changes nothing
        :raises ValueError: if it is another value
        """
        check("seed", seed, SEED)
        seed = None if seed is None else int(seed)  # Gymnasium refuses NumPy's integers
        super().set_random_seed(seed)
        if seed is not None:
            self._draw_seed = seed

    @staticmethod
    def _wrap_env(env: GymEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        env = maybe_make_env(env, verbose)
        if isinstance(env, gym.Env):  # some spaces cannot be vectorised
            check_observations(env.observation_space)
        vector_env: Any = env
        if isinstance(vector_env, gym.vector.VectorEnv):
            if verbose >= 1:
                print("Wrapping the env in a GymnasiumVecEnv.")
            env = GymnasiumVecEnv(vector_env)
        if not isinstance(env, VecEnv):
            env = wrap_bare_env(env, verbose, monitor_wrapper)
        check_observations(env.observation_space)
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def train(self) -> None:
        """
        Update the policy, then the critic, with the rollout that was just collected.

        :raises ValueError: before any weight changes, if returns or advantages are too large for float32, if a schedule gives
            a number out of range, if the actor depends on chance, or if ``clipped_gaussian`` was set after the policy was made
        :raises RuntimeError: before any weight changes, if torch computes no gradients
        """
        check_can_learn(self.policy)
        # NumPy's errors are like torch's, whatever the user has set
        with np.errstate(all="ignore"), differentiable_recurrence(self.interface), ExitStack() as threads:
            started = time.perf_counter()
            reduced = self.workers.seconds
            interface, plain, batch = raise_together(self.workers, self._prepare_update)
            threads.enter_context(torch_in_one_thread(plain))
            chunk_size = self.chunk_size or automatic_chunk_size(interface, batch)
            actor = reached_parameters(interface, plain, batch, chunk_size, self.workers)
            network = actor_network(interface, plain)
            statistics = MovingStatistics.of(interface, batch, self.workers)
            inputs = self._observe_inputs(plain, batch)
            problem, why_not = self._pose_problem(network, actor, self._policy_batch(batch), chunk_size, statistics, inputs)
            max_kl = self._bound(batch)
            self.last_step = self._step_policy(problem, why_not, statistics, inputs, max_kl)
            if statistics.layers:
                kl = refresh_within_bound(interface, statistics.layers, batch, problem.evaluate, max_kl, self.workers)
                self.last_step = self.last_step if kl is None else replace(self.last_step, kl=kl)
            losses = self._fit_critic(interface, plain, critic_parameters(self.policy, actor), batch, chunk_size, inputs)
            detach_action_dist(self.policy)
            self._n_updates += 1
            self._check_equal_parameters()
            forced = forced_fraction(batch.states.action_masks, self.action_space)
            update = Update(
                step=self.last_step,
                entropy=problem.entropy,
                losses=losses,
                n_updates=self._n_updates,
                seconds=time.perf_counter() - started,
                target_kl=max_kl,
                forced_fraction=None if forced is None else mean_over(self.workers, forced, len(batch)),
                reduce_seconds=self.workers.seconds - reduced,
            )
            log_update(self.logger, update, self.policy, self.rollout_buffer, self.workers)

    def _prepare_update(self) -> tuple[PolicyInterface, PlainPolicy | Reason, Batch]:
        """Check what may have changed since the last update; set evaluation mode and learning rate; read the rollout."""
        self._check_hyperparameters()  # a callback may have set them
        self._in_use.refuse_changes(self)
        check_clipping(self.policy, self.clipped_gaussian)
        # the last rollout may overshoot the budget, and no schedule expects a negative progress
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)
        self.policy.set_training_mode(False)  # with dropout on, KL(old‖old) would not be 0
        self._adopt_learning_rate()
        scheduled("learning_rate", self.lr_schedule, self._current_progress_remaining)
        self._update_learning_rate(self.policy.optimizer)
        interface, plain = self.interface, plain_policy(self.interface)
        batch = read_batch(self.rollout_buffer, self.action_space, interface.state_fields)
        batch = interface.arrange(batch, self.n_envs).checked()
        check_returns(batch.returns, batch.advantages)
        check_repeatable(interface, plain, batch)
        return interface, plain, batch

    def _policy_batch(self, rollout: Batch) -> Batch:
        """Return the batch of the policy step; a subclass may estimate the same surrogate from another one."""
        return rollout

    def _derivative_batch(self, batch: Batch, chunk_size: int) -> Batch:
        """Return the batch of all derivatives; a subclass may cut the same transitions into shorter units."""
        return batch

    def _pose_problem(
        self,
        network: ActorNetwork,
        parameters: list[th.nn.Parameter],
        batch: Batch,
        chunk_size: int,
        statistics: MovingStatistics,
        inputs: Inputs | None,
    ) -> tuple[PolicyProblem, Outcome | None]:
        """Pose the policy step, or tell why there is none to take. Draw no number from a global generator."""
        ent_coef = self._scheduled("ent_coef")
        advantages = effective_advantages(
            batch.advantages, batch.returns, self.normalize_advantage, batch.weights, self.workers
        )
        why_not: Outcome | None = None
        if not parameters:
            why_not = Outcome.NO_PARAMETERS
        elif (statistics.gather_images or (inputs and inputs.new)) and self._spent_share() <= _GATHERING_SHARE:
            why_not = Outcome.GATHERING
        elif self._scheduled("target_kl") == 0.0:
            why_not = Outcome.NO_TRUST_REGION
        elif not (self.workers.any(bool(advantages.any())) or ent_coef):
            why_not = Outcome.ZERO_SIGNAL
        batch = batch.with_advantages(advantages)
        derivatives = self._derivative_batch(batch, chunk_size)
        problem = PolicyProblem(
            network,
            parameters if why_not is None else [],
            batch,
            ent_coef,
            chunk_size,
            self._subsets(derivatives),
            self.workers,
            Coordinates(inputs.units, inputs.layers.actor, parameters) if inputs and why_not is None else None,
            derivatives,
        )
        return problem, why_not

    def _spent_share(self) -> float:
        """Compute the share of this ``learn``'s env steps that are spent: 0 to 1, or more in the last rollout."""
        budget = self._total_timesteps - self._num_timesteps_at_start
        return (self.num_timesteps - self._num_timesteps_at_start) / budget if budget > 0 else 1.0

    def _bound(self, batch: Batch) -> float:
        """Return δ of this update, nats: ``target_kl``, or less if the rollout's advantages are mostly the critic's errors."""
        target_kl = self._scheduled("target_kl")
        if not self.scale_target_kl:
            return target_kl
        return target_kl * bound_scale(batch.advantages, batch.returns, batch.weights, self.workers)

    def _step_policy(
        self,
        problem: PolicyProblem,
        why_not: Outcome | None,
        statistics: MovingStatistics,
        inputs: Inputs | None,
        max_kl: float,
    ) -> StepReport:
        """Take the policy step with a KL of at most δ = ``max_kl``, unless there is a reason not to."""
        if inputs and inputs.new:
            evaluate = problem.evaluate if why_not is Outcome.GATHERING else None
            kl = begin_standardized(inputs.layers, inputs.units, evaluate, max_kl)
            if kl is not None:
                return StepReport(Outcome.GATHERING, problem.old.surrogate, kl=kl)
        if why_not is not None:
            return StepReport(why_not, problem.old.surrogate)
        share = _STEP_SHARE if statistics.move_actor else 1.0
        return self.step_rule(problem, self._step_settings(share * max_kl))

    def _step_settings(self, max_kl: float) -> Any:
        """
        Return the settings of :attr:`step_rule` for this update.

        :param max_kl: the bound δ on the KL of the step, nats
        :return: the settings
        """
        return TrustRegionSettings(
            max_kl=max_kl,
            damping=self.cg_damping,
            cg_max_steps=self.cg_max_steps,
            cg_tol=self.cg_tol,
            shrinking_factor=self.line_search_shrinking_factor,
            max_iter=self.line_search_max_iter,
            accept_ratio=self.line_search_accept_ratio,
        )

    def _scheduled(self, name: str) -> float:
        return scheduled(name, make_schedule(name, getattr(self, name)), self._current_progress_remaining)

    def _subsets(self, batch: Batch) -> Subsets:
        """Choose the units of gradient and Fisher products and, unless these are all, others that tell the step's length."""
        if self.sub_sampling_factor == 1 and self.fisher_sample_fraction == 1.0:
            return ALL_UNITS
        whole = Whole.of(batch, self.n_envs, self.workers)
        kept = every_kth(whole, self.sub_sampling_factor)
        curvature, others = fisher_subsets(kept, self.fisher_sample_fraction, whole.n_units, self._fisher_seed())
        gradient = None if self.sub_sampling_factor == 1 else kept
        parts = (gradient, curvature, others if len(others) else None)
        return Subsets(*(None if part is None else th.from_numpy(whole.own(part)) for part in parts))

    def _fisher_seed(self) -> tuple[int, ...]:
        """Return the seed of this update's draw; a subclass that draws more must use separate streams."""
        return self._draw_seed, self._n_updates

    def _fit_critic(
        self,
        interface: PolicyInterface,
        plain: PlainPolicy | Reason,
        parameters: list[th.nn.Parameter],
        batch: Batch,
        chunk_size: int,
        inputs: Inputs | None,
    ) -> list[float]:
        """Regress the values on the returns, and return the loss of each mini-batch."""
        if not (parameters and self.n_critic_updates):
            return []
        batch = self._derivative_batch(batch, chunk_size)
        scale, output = TargetScale(), output_layer(interface) if self.normalize_returns else None
        with watched_actor(interface, plain, batch), ExitStack() as coordinates:
            if inputs is not None:
                coordinates.enter_context(inputs.units.within(inputs.layers.critic))
                batch = inputs.units.standardize(batch)
            if isinstance(output, nn.Linear):
                scale = observe_targets(self.return_moments, batch.returns, self.workers)
                coordinates.enter_context(normalized_output(output, scale))
                batch = replace(batch, returns=scale.normalized(batch.returns))
            whole = Whole.of(batch, self.n_envs, self.workers)
            permutation = shared_permutation(self.workers)
            data = FitData(self.rollout_buffer, batch, self.batch_size, chunk_size, scale, whole, permutation)
            epoch = make_epoch(interface, plain, parameters, data, self.workers)
            losses = fit_critic(self.policy, parameters, epoch, self.n_critic_updates, self.max_grad_norm)
        return [loss * scale.std**2 for loss in losses]

    def _observe_inputs(self, plain: PlainPolicy | Reason, batch: Batch) -> Inputs | None:
        """Merge the moments of the observations, if the update works in their units."""
        layers = self._first_layers(plain)
        if isinstance(layers, Reason):
            return None
        untrained = [layer.weight.detach() for layer in layers]
        new = self.observation_moments.n_rollouts == 0 and all(map(th.equal, untrained, self._initial_weights))
        assert isinstance(batch.states.observations, th.Tensor)
        self.observation_moments.update(batch.states.observations, workers=self.workers)
        return Inputs(layers, StandardizedInputs.of(self.observation_moments), new)

    def _first_layers(self, plain: PlainPolicy | Reason) -> FirstLayers | Reason:
        """Find the layers whose inputs are standardised, or tell why there are none."""
        if not self.normalize_observations:
            return Reason("`normalize_observations` is False")
        if not keeps_sb3_layout(self.rollout_buffer):
            return Reason("the rollout buffer makes its own mini-batches")
        return first_layers(plain)

    def learn(
        self: SelfTRPO,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "TRPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfTRPO:
        """
        Train the model.

        :param total_timesteps: number of env steps; a float such as 1e6 is allowed
        :param callback: callback(s) called at every step
        :param log_interval: number of updates between two log outputs; None: no output
        :param tb_log_name: name of the run for tensorboard
        :param reset_num_timesteps: whether to start counting env steps anew
        :param progress_bar: whether to display a progress bar (needs tqdm and rich)
        :return: the trained model
        :raises ValueError: if ``total_timesteps`` is not a whole number >= 0 or ``log_interval`` is not an integer >= 1, or if
            the model has no environment
        :raises TypeError: if an environment returns no arrays of numbers, or a wrapper of SB3 gets arrays of another library,
            naming their type
        :raises RuntimeError: under ``torch.inference_mode`` or ``torch.no_grad``; if a worker of a ``SubprocVecEnv`` ends,
            naming it; the environment is then closed
        """
        steps = to_float(total_timesteps)
        if not (steps >= 0.0 and steps.is_integer()):
            raise ValueError(f"`total_timesteps` must be a whole number of env steps >= 0, not {described(total_timesteps)}")
        check("log_interval", log_interval, optional(integer(1)))
        try:
            with self._ending_together(), dead_workers_named(self.env), foreign_arrays_named(), numpy_in_one_thread():
                return super().learn(
                    total_timesteps=int(total_timesteps),
                    callback=callback,
                    log_interval=log_interval,
                    tb_log_name=tb_log_name,
                    reset_num_timesteps=reset_num_timesteps,
                    progress_bar=progress_bar,
                )
        except BaseException:
            self._close_progress_bars()
            raise
        finally:
            self._progress_bars = ()

    def _agree_to_go_on(self, stopped: bool) -> bool:
        goes_on = super()._agree_to_go_on(stopped)
        # a bar counts the steps at which this process's callbacks are called: not its branches, and not the other processes
        missing = self.num_timesteps - self._steps_before - self._counts["env_steps"] + self._counts["branch_steps"]
        for callback in self._progress_bars if missing else ():
            callback.pbar.update(missing)
        return goes_on

    def _close_progress_bars(self) -> None:
        """Close the bars of a ``learn`` that has raised something: the terminal is theirs until then."""
        for callback in self._progress_bars:
            if hasattr(callback, "pbar"):  # it has begun
                callback.pbar.close()

    def _excluded_save_params(self) -> list[str]:
        of_this_process = ["last_step", "_interface", "_in_use", "_initial_weights", "_progress_bars"]
        return [*super()._excluded_save_params(), *of_this_process, *_WARNINGS]


def _peek_at_random() -> int:
    """Return the number that torch would draw next, without drawing it: random unless torch was seeded."""
    with th.random.fork_rng(devices=[]):
        return int(th.randint(2**31, (1,)))
