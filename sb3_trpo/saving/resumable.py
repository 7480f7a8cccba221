"""The part of an on-policy algorithm that saves its runs between two updates, and continues them."""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from sb3_trpo.processes.launch import join
from sb3_trpo.saving.callback_states import tree
from sb3_trpo.saving.checkpoint_folder import read_newest_of_the_first
from sb3_trpo.saving.resume_callback import EXIT_CODE, ResumeCallback
from sb3_trpo.saving.run_state import adopt_attributes, check_same_class, check_same_run, restore_run, restore_weights
from sb3_trpo.step.workers import ALONE, Workers

SelfResumable = TypeVar("SelfResumable", bound="ResumableAlgorithm")


class ResumableAlgorithm(OnPolicyAlgorithm):
    """An on-policy algorithm whose runs can be resumed. Its ``collect_rollouts`` calls :meth:`_begin_rollout`."""

    workers: Workers = ALONE
    """The processes that share the run."""
    attributes_of_learn = ("run_folders", "_interrupted", "_resume_callbacks", "_n_rollouts", "_log_interval")
    """Attributes that are not saved with a model."""
    run_folders: frozenset[Path] = frozenset()
    """Folders of checkpoints of this run."""
    _interrupted: dict[str, Any] | None = None
    """State of the run that the next ``learn`` continues."""
    _resume_callbacks: Sequence[ResumeCallback] = ()
    """The callbacks of this ``learn`` that save the run."""
    _n_rollouts = 0
    """Number of rollouts that this ``learn`` has begun, those before an interruption included."""
    _log_interval = 1

    @property
    def is_continued(self) -> bool:
        """Tell whether the next rollout continues an interrupted run."""
        return self._interrupted is not None

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._n_rollouts = 0
        set_up = super()._setup_learn if self._interrupted is None else self._continue_learn
        total_timesteps, root = set_up(*args, **kwargs)
        self._resume_callbacks = [part for part in tree(root) if isinstance(part, ResumeCallback)]
        self._refuse_different_callbacks()
        return total_timesteps, root

    def _refuse_different_callbacks(self) -> None:
        """Refuse processes that would save at different times."""
        saving = self.workers.gather([part.every for part in self._resume_callbacks])
        for rank, other in enumerate(saving):
            if other != saving[0]:
                raise ValueError(
                    "all processes must have the same ResumeCallback: those of rank 0 save every "
                    f"{saving[0]} updates, those of rank {rank} every {other}"
                )

    def _continue_learn(
        self, total_timesteps: int, callback: MaybeCallback, reset: bool, *rest: Any, **kwargs: Any
    ) -> tuple[int, BaseCallback]:
        """Set up the ``learn`` of an interrupted run: its budget counts from where that run began to count."""
        assert self._interrupted is not None
        adopt_attributes(self, self._interrupted)
        started_at = self._num_timesteps_at_start
        self._last_obs = None  # the environments must be reset once before their state is restored
        _, root = super()._setup_learn(total_timesteps, callback, False, *rest, **kwargs)
        self._num_timesteps_at_start, self._total_timesteps = started_at, started_at + total_timesteps
        return self._total_timesteps, root

    def _begin_rollout(self, callback: BaseCallback) -> None:
        """
        Save the run if it is time to, or restore the one that is continued.

        :param callback: the callback that holds all others
        """
        state, self._interrupted = self._interrupted, None
        if state is not None:
            restore_run(self, callback, state, ResumeCallback)
        else:
            for part in self._resume_callbacks:
                part.before_rollout(callback, after_update=self._n_rollouts > 0)
        self._n_rollouts += 1

    def learn(
        self: SelfResumable,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "OnPolicyAlgorithm",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfResumable:
        """
        Train the model.

        :param total_timesteps: number of env steps
        :param callback: callback(s) called at every step
        :param log_interval: number of updates between two log outputs; None: no output
        :param tb_log_name: name of the run for tensorboard
        :param reset_num_timesteps: whether to start counting env steps anew
        :param progress_bar: whether to display a progress bar
        :return: the trained model
        :raises SystemExit: after SIGTERM, if a callback saves the run
        """
        self._log_interval = log_interval or 1
        every_rollout: Any = None if log_interval is None else 1  # dump_logs chooses among them
        failure: Exception | None = None
        try:
            super().learn(total_timesteps, callback, every_rollout, tb_log_name, reset_num_timesteps, progress_bar)
        except Exception as error:
            failure = error
        finally:
            ended = [part.release() for part in reversed(self._resume_callbacks)]  # each gives back what the one before set
            self._resume_callbacks = ()
        if any(ended):  # there was no other rollout to end before, or the signal has ended the worker processes too
            if failure is not None:
                warnings.warn(f"the run ended after SIGTERM without another checkpoint: {failure}", UserWarning, stacklevel=2)
            raise SystemExit(EXIT_CODE) from failure
        if failure is not None:
            raise failure
        return self

    def dump_logs(self, iteration: int = 0) -> None:
        """
        Write the log, in ``learn`` after every ``log_interval``-th rollout.

        :param iteration: number of rollouts since ``learn`` was called; 0: outside of ``learn``
        """
        if iteration == 0:
            super().dump_logs()
        elif self._n_rollouts % self._log_interval == 0:
            super().dump_logs(self._n_rollouts)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *self.attributes_of_learn]

    @classmethod
    def resume(
        cls: type[SelfResumable],
        folder: str | os.PathLike[str],
        env: GymEnv | str,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        trusted: bool = False,
        distributed: bool = False,
    ) -> SelfResumable:
        """
        Continue a run that :class:`~sb3_trpo.ResumeCallback` has saved, after a kill or a crash.

        Make the environments, the callbacks and, if you set one, the logger as the interrupted program did, and call
        ``learn`` with the same arguments. The run then ends with the same weights and the same rows of the log as if it had
        not been interrupted, bit for bit, if the state of its environments can be saved; otherwise a warning says that they
        were reset.

        :param folder: folder of the callback; the newest checkpoint that is whole is used
        :param env: environments like those of the run, as many of them
        :param device: device to load to
        :param custom_objects: objects that replace those of the file, such as some that this Python cannot read
        :param trusted: whether the file may run the code that it contains; see :meth:`load`
        :param distributed: whether the run is shared with the other processes that ``torchrun`` has started; only the first of
            them must be able to read the folder
        :return: the model, with the weights of the checkpoint
        :raises FileNotFoundError: if there is no checkpoint that can be read
        :raises ValueError: if the run has another class, or another number of environments or processes
        """
        workers = join() if distributed else ALONE
        checkpoint = read_newest_of_the_first(Path(folder), trusted, workers)
        check_same_class(checkpoint.about, cls)
        chosen: dict[str, Any] = {"env": env, "device": device, "custom_objects": custom_objects, "trusted": trusted}
        model = cls.load(io.BytesIO(checkpoint.model), **chosen)
        check_same_run(checkpoint.about, model, workers.rank)
        for name in custom_objects or {}:
            checkpoint.state["attributes"].pop(name, None)
        restore_weights(model, checkpoint.state)
        model._interrupted = checkpoint.state
        model.run_folders = frozenset([Path(folder).resolve(), *map(Path, checkpoint.about.get("folders", ()))])
        return model
