"""The part of an algorithm that shares a run with other processes."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    ProgressBarCallback,
)

from sb3_trpo.arguments.agreement import describe_training, refuse_differences
from sb3_trpo.arguments.hyperparameters import hyperparameter_names
from sb3_trpo.batch.whole import Share
from sb3_trpo.processes.group import Processes
from sb3_trpo.processes.launch import is_launched, join
from sb3_trpo.rollout.collector import RolloutCollector
from sb3_trpo.rollout.frozen_statistics import FrozenStatistics
from sb3_trpo.saving.resume_callback import EXIT_CODE
from sb3_trpo.step.workers import ALONE
from sb3_trpo.update.moments import RunningMoments

_OF_THE_FIRST = (EvalCallback, CheckpointCallback, ProgressBarCallback)
"""Callbacks that evaluate, write files or show something, which the first process does for all."""
_COUNTERS = ("num_timesteps", "_n_updates", "_draw_seed", "_current_progress_remaining")


class SharedRun(RolloutCollector):
    """
    Shares a run with the other processes that ``torchrun`` has started, if :attr:`distributed` is set.

    The first process (rank 0) evaluates, logs and writes files. All of them end if one of them fails.
    """

    distributed = False
    freeze_normalization: bool | None = None
    observation_moments: RunningMoments
    return_moments: RunningMoments
    _draw_seed: int
    _initial_weights: list[th.Tensor]

    def _join(self) -> None:
        """Join the other processes; all of them must call this at the same point."""
        self.workers = join() if self.distributed else ALONE
        self._share = Share.of(self.n_envs, self.workers)

    def _join_if_loaded(self) -> bool:
        """Join the other processes, if that has waited until ``learn``; a loaded model may also be one process's own."""
        if not self.distributed or self._share is not None:
            return False
        self._join()
        self.set_random_seed(self.seed)
        return True

    @property
    def _n_envs_of_all(self) -> int | None:
        """Return the number of environments of all processes; None: a loaded model has not joined them yet."""
        if self.distributed and self._share is None and (self.env is None or is_launched()):
            return None
        return self.share.total

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed the environments of all processes as one larger set.

        :param seed: the seed, equal on all of them; None changes nothing
        """
        super().set_random_seed(seed)
        rank = self.workers.rank
        if seed is None or rank == 0:
            return
        random.seed(seed + rank)  # an environment may draw from the global generators
        np.random.seed((seed + rank) % 2**32)  # noqa: NPY002
        if self.env is not None:
            self.env.seed(seed + self.share.first)

    def _begin_shared_run(self, total_timesteps: int) -> None:
        """
        Let all processes begin from the state of the first one.

        :param total_timesteps: the budget of this ``learn``
        :raises ValueError: if they do not run the same training
        """
        several = self.workers.size > 1
        normalizer = self._vec_normalize_env
        if several:
            names = [*hyperparameter_names(), *getattr(self, "extra_arguments", ())]
            described = describe_training(self, names, normalizer) | {"total_timesteps": str(total_timesteps)}
            refuse_differences(self.workers.gather(described))
        freeze = several if self.freeze_normalization is None else self.freeze_normalization
        if normalizer is not None and freeze and self._frozen is None:
            self._frozen = FrozenStatistics(normalizer)
        if several:
            self._adopt_state_of_the_first()

    def _adopt_state_of_the_first(self) -> None:
        """Take over everything that decides the course of a run and belongs to no environment."""
        self.workers.broadcast([*self.policy.parameters(), *self.policy.buffers(), *self._initial_weights])
        state: dict[str, Any] = {
            "optimizer": self.policy.optimizer.state_dict(),
            "moments": [vars(self.observation_moments), vars(self.return_moments)],
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "statistics": None if self._frozen is None else self._frozen.current(),
        }
        state = self.workers.gather(state if self.workers.rank == 0 else None)[0]
        if self.workers.rank == 0:
            return
        self.policy.optimizer.load_state_dict(state["optimizer"])
        for moments, values in zip((self.observation_moments, self.return_moments), state["moments"], strict=True):
            vars(moments).update(values)
        vars(self).update(state["counters"])
        if self._frozen is not None:
            self._frozen.set(state["statistics"])
        self.verbose, self.tensorboard_log = 0, None  # a loaded model has those of the first

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        if self.workers.rank > 0:
            self.logger.output_formats = []
        return result

    def _init_callback(self, callback: Any, progress_bar: bool = False) -> BaseCallback:
        if self.workers.rank == 0:
            return super()._init_callback(callback, progress_bar)
        return super()._init_callback(without_callbacks_of_the_first(callback), False)

    def _check_equal_parameters(self) -> None:
        """
        Compare the parameters of all processes.

        :raises RuntimeError: if two differ in a bit
        """
        workers = self.workers
        if workers.size == 1:
            return
        digests = th.zeros(workers.size, dtype=th.float64)
        digests[workers.rank] = digest_of([*self.policy.parameters(), *self.policy.buffers()])
        digests = workers.sum(digests)
        different = (digests != digests[0]).nonzero().flatten().tolist()
        if different:
            raise RuntimeError(
                f"the parameters of rank {different[0]} differ from those of rank 0 after update {self._n_updates}: something "
                "has changed them on one process only, such as a callback"
            )

    @contextmanager
    def _ending_together(self) -> Iterator[None]:
        """Let the other processes end if this one fails within the context."""
        try:
            yield
        except BaseException as error:
            saved = isinstance(error, SystemExit) and error.code == EXIT_CODE  # as all of them have
            if isinstance(self.workers, Processes) and not saved:
                self.workers.leave(error)
            raise
        finally:
            if self._frozen is not None:
                self._frozen.release()
                self._frozen = None

    def _excluded_save_params(self) -> list[str]:
        own = ["workers", "_share", "_frozen", "_ended", "_counts", "_steps_before"]
        return [*super()._excluded_save_params(), *own]


def digest_of(tensors: Iterable[th.Tensor]) -> int:
    """
    Compute a number that depends on every bit of some tensors.

    :param tensors: the tensors
    :return: the number, of 48 bits, so that float64 holds it exactly
    """
    digest = hashlib.blake2b(digest_size=6)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(th.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest())


class _Nothing(BaseCallback):
    """Stands in for a callback of the first process."""

    def _on_step(self) -> bool:
        return True


def without_callbacks_of_the_first(callback: Any) -> Any:
    """
    Leave out the callbacks that only the first process runs: those that evaluate, save or show the progress, and those of a
    user with a true ``first_rank_only``.

    :param callback: callbacks as ``learn`` takes them
    :return: the others
    """
    if isinstance(callback, list):
        return [without_callbacks_of_the_first(part) for part in callback]
    if not isinstance(callback, BaseCallback):
        return callback
    if isinstance(callback, _OF_THE_FIRST) or getattr(callback, "first_rank_only", False):
        return _Nothing()
    if isinstance(callback, CallbackList):
        callback.callbacks = without_callbacks_of_the_first(callback.callbacks)
    child = getattr(callback, "callback", None)
    if isinstance(child, BaseCallback):
        callback.callback = without_callbacks_of_the_first(child)  # type: ignore[attr-defined]
    return callback
