"""The class MaskableTRPO: TRPO in environments that do not allow every action in every state."""

import warnings
from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.arguments.policies import why_not_maskable
from sb3_trpo.checks import BOOLEAN, Rule, check
from sb3_trpo.distributions.action_masks import MASKABLE_SPACES, MaskLayout
from sb3_trpo.envs.mask_sources import SOURCES, EnvMaskSource, find_mask_source
from sb3_trpo.policies.maskable import (
    MaskableCnnPolicy,
    MaskableMlpPolicy,
    MaskableMultiInputPolicy,
    Masks,
    is_contrib_maskable,
    predict_with_masks,
)
from sb3_trpo.rollout.arrays import in_numpy

SelfMaskableTRPO = TypeVar("SelfMaskableTRPO", bound="MaskableTRPO")

_SOURCE = Rule(f"'auto' or one of {', '.join(map(repr, SOURCES))}", lambda value: value in ("auto", *SOURCES))


class MaskableTRPO(TRPO):
    """
    Runs TRPO with action masks: it never takes an action that the environment forbids in the present state.

    A forbidden action has probability 0, before and after the step, so neither the gradient nor the KL nor the Fisher matrix
    depends on it. The rest of the update is that of :class:`~sb3_trpo.TRPO`; with masks that allow everything it is the same,
    bit for bit.

    Masks are True for an allowed action. Their length is n for ``Discrete(n)``, the sum of ``nvec`` for ``MultiDiscrete``, and
    2 d for ``MultiBinary(d)``: off and on for each dimension. :mod:`sb3_trpo.envs.mask_sources` lists where they come from.

    Source: Huang and Ontañón 2020, "A Closer Look at Invalid Action Masking" (https://arxiv.org/abs/2006.14171).

    :param policy: the policy to use (MlpPolicy, CnnPolicy, MultiInputPolicy, or a class, also one of sb3-contrib's maskable
        ones)
    :param env: the environment to learn from (if registered in Gym, can be str)
    :param args: further arguments of :class:`~sb3_trpo.TRPO`, in the same order
    :param mask_source: where the masks come from: "vec_env" (the method ``action_masks`` of the ``VecEnv``), "env_method"
        (that of its environments), "info" (the key ``action_mask`` or ``action_masks`` of the infos), "observation" (that key
        of a Dict observation), or "auto" (the first of these that exists)
    :param kwargs: keyword arguments of :class:`~sb3_trpo.TRPO`
    :raises ValueError: for a hyperparameter out of range, naming it
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MaskableMlpPolicy,
        "CnnPolicy": MaskableCnnPolicy,
        "MultiInputPolicy": MaskableMultiInputPolicy,
    }
    extra_arguments: ClassVar[tuple[str, ...]] = ("mask_source",)
    supported_action_spaces = MASKABLE_SPACES
    source_models = "without memory"
    trained_with_masks = False
    """Whether the model has ever collected a rollout with masks."""
    _use_masking = True
    _masks: EnvMaskSource | None = None
    _has_warned = False

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *args: Any,
        mask_source: str = "auto",
        **kwargs: Any,
    ) -> None:
        self.mask_source = mask_source
        super().__init__(policy, env, *args, **kwargs)

    @classmethod
    def why_not_policy(cls, policy_class: Any) -> str | None:
        """
        Tell why the algorithm cannot train policies of a class.

        :param policy_class: any class, or anything else
        :return: the reason; None if it can: TRPO can, or it is one of sb3-contrib's maskable policies
        """
        return why_not_maskable(policy_class)

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("mask_source", self.mask_source, _SOURCE)

    def _make_policy_and_buffer(self) -> None:
        cls: Any = self.policy_class
        if is_contrib_maskable(cls):  # which does not take `use_sde`
            self.policy_class = lambda *args, use_sde, **kwargs: cls(*args, **kwargs)  # type: ignore[assignment]
        try:
            super()._make_policy_and_buffer()
        finally:
            self.policy_class = cls

    def _extra_bytes(self) -> dict[str, int]:
        return {**super()._extra_bytes(), "action masks": MaskLayout.of(self.action_space).size}

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        before = self._last_obs
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        if self._use_masking:
            self._look_for_masks(was_reset=reset_num_timesteps or self._last_obs is not before)
        return result

    def _look_for_masks(self, was_reset: bool) -> None:
        """Find the source of the masks, unless it is known already."""
        assert self.env is not None
        kept = self._masks is not None and self._masks.env is self.env
        if kept and self.mask_source in ("auto", _name_of(self._masks)):
            if was_reset:
                assert self._masks is not None
                self._masks.reset()
            return
        if not was_reset:  # the masks of the present state may have gone by with its info
            self._last_obs = in_numpy("observations", self.env.reset())
            self._last_episode_starts = np.ones((self.env.num_envs,), dtype=bool)
        self._masks = find_mask_source(self.env, self.mask_source)
        if self.verbose >= 1:
            print(f"Action masks come from: {_name_of(self._masks)}")

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        """
        Fill the buffer with the current policy.

        :param env: the training environments
        :param callback: called at every step, and at the rollout's start and end
        :param rollout_buffer: the buffer to fill
        :param n_rollout_steps: number of steps of each environment
        :param use_masking: whether to use action masks; ``learn(use_masking=False)`` takes precedence
        :return: False if the callback stopped the training
        :raises ValueError: if a mask has a wrong length, other values than 0 and 1, or allows nothing; if an environment
            changes a mask before the step; see also :class:`~sb3_trpo.rollout.collector.RolloutCollector`
        :raises RuntimeError: if there is no observation to begin with
        """
        self.interface.mask_source = None
        if use_masking and self._use_masking:
            if self._masks is None or self._masks.env is not env:  # `learn` was not called
                self._masks = find_mask_source(env, self.mask_source)
            self._masks.begin()
            self.interface.mask_source = self._masks
            self.trained_with_masks = True
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def learn(  # type: ignore[override]  # sb3-contrib has use_masking in this place
        self: SelfMaskableTRPO,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "MaskableTRPO",
        reset_num_timesteps: bool = True,
        use_masking: bool = True,
        progress_bar: bool = False,
    ) -> SelfMaskableTRPO:
        """
        Train the model.

        :param total_timesteps: number of env steps; a float such as 1e6 is allowed
        :param callback: callback(s) called at every step
        :param log_interval: number of updates between two log outputs; None: no output
        :param tb_log_name: name of the run for tensorboard
        :param reset_num_timesteps: whether to start counting env steps anew
        :param use_masking: whether to use action masks
        :param progress_bar: whether to display a progress bar (needs tqdm and rich)
        :return: the trained model
        :raises ValueError: if the environments have no masks; see also :meth:`~sb3_trpo.TRPO.learn`
        :raises RuntimeError: see :meth:`~sb3_trpo.TRPO.learn`
        """
        check("use_masking", use_masking, BOOLEAN)
        self._use_masking = bool(use_masking)
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Masks = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions.

        :param observation: one observation, or several
        :param state: memory of a recurrent policy
        :param episode_start: whether an episode begins, for a recurrent policy
        :param deterministic: whether to take the most probable action
        :param action_masks: the actions that are possible, shape (n,) for one observation or (B, n) for B of them; None: all,
            with a warning if the model was trained with masks
        :return: the actions, and the next memory
        :raises ValueError: if a mask has a wrong length, other values than 0 and 1, or allows nothing
        """
        if action_masks is not None:
            return predict_with_masks(self.policy, action_masks, observation, state, episode_start, deterministic)
        if self.trained_with_masks and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "`predict` was called without `action_masks`, but the model was trained with masks: it may choose actions "
                "that the environment forbids. Pass `action_masks`; to evaluate, use sb3-contrib's "
                "`maskable.evaluation.evaluate_policy` and `MaskableEvalCallback`.",
                UserWarning,
                stacklevel=2,
            )
        return super().predict(observation, state, episode_start, deterministic)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_use_masking", "_masks", "_has_warned"]


def _name_of(source: EnvMaskSource | None) -> str | None:
    return next((name for name, cls in SOURCES.items() if type(source) is cls), None)
