"""The class MaskableRecurrentTRPO: a policy with memory where not every action is allowed in every state."""

from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_trpo.algorithms.maskable import MaskableTRPO
from sb3_trpo.algorithms.recurrent import RecurrentTRPO
from sb3_trpo.policies.maskable import Masks
from sb3_trpo.policies.recurrent_interface import RecurrentInterface

SelfMaskableRecurrentTRPO = TypeVar("SelfMaskableRecurrentTRPO", bound="MaskableRecurrentTRPO")


class MaskableRecurrentTRPO(MaskableTRPO, RecurrentTRPO):
    """
    Runs TRPO with memory and action masks.

    It is :class:`~sb3_trpo.RecurrentTRPO` whose actions are restricted as in :class:`~sb3_trpo.MaskableTRPO`.

    :param policy: the policy to use (MlpLstmPolicy, CnnLstmPolicy, MultiInputLstmPolicy, or a class)
    :param env: the environment to learn from (if registered in Gym, can be str)
    :param args: further arguments of :class:`~sb3_trpo.RecurrentTRPO`, in the same order
    :param mask_source: see :class:`~sb3_trpo.MaskableTRPO`
    :param kwargs: keyword arguments of :class:`~sb3_trpo.RecurrentTRPO`
    :raises ValueError: for a hyperparameter out of range, naming it
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = RecurrentTRPO.policy_aliases
    extra_arguments: ClassVar[tuple[str, ...]] = (*MaskableTRPO.extra_arguments, *RecurrentTRPO.extra_arguments)
    source_models = RecurrentTRPO.source_models
    interface_class = RecurrentInterface

    @classmethod
    def why_not_policy(cls, policy_class: Any) -> str | None:
        """
        Tell why this algorithm cannot train policies of a class.

        :param policy_class: any class, or anything else
        :return: the reason; None if it can
        """
        return RecurrentTRPO.why_not_policy(policy_class)

    def learn(  # type: ignore[override]  # sb3-contrib has use_masking in this place
        self: SelfMaskableRecurrentTRPO,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "MaskableRecurrentTRPO",
        reset_num_timesteps: bool = True,
        use_masking: bool = True,
        progress_bar: bool = False,
    ) -> SelfMaskableRecurrentTRPO:
        """
        Train the model; see :meth:`~sb3_trpo.MaskableTRPO.learn`.

        :param total_timesteps: number of env steps; a float such as 1e6 is allowed
        :param callback: callback(s) called at every step
        :param log_interval: number of updates between two log outputs; None: no output
        :param tb_log_name: name of the run for tensorboard
        :param reset_num_timesteps: whether to start counting env steps anew
        :param use_masking: whether to use action masks
        :param progress_bar: whether to display a progress bar (needs tqdm and rich)
        :return: the trained model
        """
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, use_masking, progress_bar
        )

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Masks = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose the actions for some observations. Warn once about a loop that never passes the state, or masks, on.

        :param observation: one observation, or n of them
        :param state: the state that the last call returned; None: the episodes begin
        :param episode_start: whether an episode begins, shape (n,); then its state is zeros
        :param deterministic: whether to take the most likely action
        :param action_masks: the actions that are possible; see :meth:`~sb3_trpo.MaskableTRPO.predict`
        :return: the actions, and the state for the next call: (h, c) of an LSTM, (h,) of a GRU
        :raises ValueError: if the state, ``episode_start`` or a mask has another shape, or a mask allows nothing
        """
        if action_masks is not None:
            self._count_forgotten(state, episode_start)
        return super().predict(observation, state, episode_start, deterministic, action_masks=action_masks)
