"""The class RecurrentTRPO: TRPO for policies with memory."""

import inspect
import warnings
from typing import Any, ClassVar, Never, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.arguments.hyperparameters import refuse_arguments
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.from_buffer import keeps_sb3_layout
from sb3_trpo.checks import check, described, integer, optional
from sb3_trpo.policies.recurrent import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy, own_class, why_not_recurrent
from sb3_trpo.policies.recurrent_interface import RecurrentInterface

SelfRecurrentTRPO = TypeVar("SelfRecurrentTRPO", bound="RecurrentTRPO")

_MANY = 10
"""Number of calls of ``predict`` without memory, one after another, that are taken for a loop that forgets it."""


class RecurrentTRPO(TRPO):
    """
    Runs TRPO with a policy that has memory: an LSTM or a GRU.

    Policies and their arguments are those of sb3-contrib's ``RecurrentPPO``. The update runs through whole episodes, as far as
    they are in the rollout, in one pass without padding. Surrogate and KL of every trial are those of the policy that acts
    again over the same observations from the rollout's first state, so the bound holds for the policy itself.

    :param policy: the policy to use (MlpLstmPolicy, CnnLstmPolicy, MultiInputLstmPolicy, or a class)
    :param env: the environment to learn from (if registered in Gym, can be str)
    :param n_steps: env steps for each environment per update; gradients reach back to the first of them

    All other arguments of :class:`~sb3_trpo.algorithms.trpo.TRPO` are arguments here too, in the same order; the default of
    ``target_kl`` is 0.03 and that of ``cg_damping`` 0.1, however many dimensions an action has, and that of
    ``fisher_sample_fraction`` is 1 for images too.
    ``sub_sampling_factor`` and ``fisher_sample_fraction`` take whole windows: the steps of one environment in one episode. So
    do the critic's mini-batches. The new argument is given by name:

    :param bptt_length: largest number of steps through which gradient and Fisher matrix reach back in time; None: to the
        beginning of the episode or the rollout. KL and surrogate of the trials always do that
    :raises ValueError: for a hyperparameter out of range, naming it
    :raises TypeError: for a policy that has no memory
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpLstmPolicy": MlpLstmPolicy,
        "CnnLstmPolicy": CnnLstmPolicy,
        "MultiInputLstmPolicy": MultiInputLstmPolicy,
    }
    extra_arguments: ClassVar[tuple[str, ...]] = ("bptt_length",)
    source_models = "with an LSTM and without masks"
    interface_class = RecurrentInterface

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule | str = 1e-3,
        n_steps: int = 128,
        batch_size: int = 128,
        gamma: float = 0.99,
        cg_max_steps: int = 10,
        cg_damping: float = 0.1,
        line_search_shrinking_factor: float = 0.8,
        line_search_max_iter: int = 10,
        n_critic_updates: int = 10,
        gae_lambda: float = 0.95,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        target_kl: float | Schedule | str = 0.03,
        sub_sampling_factor: int = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        bptt_length: int | None = None,
        fisher_sample_fraction: float = 1.0,
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
        policy = own_class(policy)
        refuse_arguments(unsupported, type(self))
        arguments = {name: value for name, value in locals().items() if name in _ARGUMENTS_OF_TRPO}
        super().__init__(**{**arguments, "_init_setup_model": False})
        self.bptt_length = bptt_length
        self._n_forgotten = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self.policy_class = own_class(self.policy_class)  # a file, or an object that replaces its class, may name another
        reason = self.why_not_policy(self.policy_class)
        if reason is not None:
            names = ", ".join(self.policy_aliases)
            raise TypeError(
                f"`policy` must be one of {names}, or a subclass of these; {described(self.policy_class)} {reason}"
            )
        super()._setup_model()
        if not keeps_sb3_layout(self.rollout_buffer):
            raise ValueError(
                "`rollout_buffer_class` must keep SB3's `get`: whole episodes are read from the buffer's arrays, which a "
                f"{type(self.rollout_buffer).__name__} does not promise"
            )

    @classmethod
    def why_not_policy(cls, policy_class: Any) -> str | None:
        """
        Tell why this algorithm cannot train policies of a class.

        :param policy_class: any class, or anything else
        :return: the reason; None if it can
        """
        return why_not_recurrent(own_class(policy_class))

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        check("bptt_length", self.bptt_length, optional(integer(1)))

    def _derivative_batch(self, batch: Batch, chunk_size: int) -> Batch:
        if self.bptt_length is None:
            return batch
        assert isinstance(self.interface, RecurrentInterface)
        return self.interface.truncate(batch, self.bptt_length, chunk_size)

    def _callback_locals(self) -> dict[str, Any]:
        assert isinstance(self.interface, RecurrentInterface)
        return {"lstm_states": self.interface.recurrent_states(), "episode_starts": self._last_episode_starts}

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose the actions for some observations. Warn once about a loop that never passes the state on.

        :param observation: one observation, or n of them
        :param state: the state that the last call returned; None: the episodes begin
        :param episode_start: whether an episode begins, shape (n,); then its state is zeros
        :param deterministic: whether to take the most likely action
        :return: the actions, and the state for the next call: (h, c) of an LSTM, (h,) of a GRU
        :raises ValueError: if the state or ``episode_start`` has another shape
        """
        self._count_forgotten(state, episode_start)
        return super().predict(observation, state, episode_start, deterministic)

    def _count_forgotten(self, state: tuple[np.ndarray, ...] | None, episode_start: np.ndarray | None) -> None:
        """Warn once if many calls of ``predict`` in a row have no state."""
        begins = episode_start is not None and bool(np.all(episode_start))
        self._n_forgotten = self._n_forgotten + 1 if state is None and not begins else 0
        if self._n_forgotten == _MANY:
            warnings.warn(
                f"`predict` was called {_MANY} times in a row without `state`, so the policy has no memory. Pass on the state "
                "that it returns: `action, state = model.predict(obs, state=state, episode_start=starts)`.",
                UserWarning,
                stacklevel=3,
            )

    def learn(
        self: SelfRecurrentTRPO,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "RecurrentTRPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRecurrentTRPO:
        """
        Train the model; see :meth:`~sb3_trpo.algorithms.trpo.TRPO.learn`.

        :param total_timesteps: number of env steps; a float such as 1e6 is allowed
        :param callback: callback(s) called at every step
        :param log_interval: number of updates between two log outputs; None: no output
        :param tb_log_name: name of the run for tensorboard
        :param reset_num_timesteps: whether to start counting env steps anew
        :param progress_bar: whether to display a progress bar (needs tqdm and rich)
        :return: the trained model
        """
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)


_ARGUMENTS_OF_TRPO = set(inspect.signature(TRPO.__init__).parameters) - {"self", "unsupported"}
