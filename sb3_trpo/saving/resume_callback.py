"""The callback that saves a run so that it can go on after a kill."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_trpo.checks import check, integer
from sb3_trpo.saving.checkpoint_folder import Checkpoint, checkpoints_in, steps_of, write_checkpoint
from sb3_trpo.saving.folder_lock import FolderLock
from sb3_trpo.saving.run_pickles import write_state
from sb3_trpo.saving.run_state import describe_run, model_file, part_of_other_rank, save_run
from sb3_trpo.snapshots.environments import Environments
from sb3_trpo.step.workers import Workers

EXIT_CODE = 143
"""Exit code of a run that SIGTERM has ended after its last checkpoint: 128 + 15, as shells report it."""


class ResumeCallback(BaseCallback):
    """
    Saves the run every few updates, so that ``TRPO.resume`` continues it exactly, bit for bit.

    A checkpoint holds everything in one file: model, optimizer, counters, running statistics, environments, random
    generators, callbacks and log; of several processes, the first writes those of all. It is written between two updates,
    whole or not at all. SIGTERM saves one more, before the next rollout, and ends the program with exit code 143.

    :param folder: folder of the checkpoints, which is created
    :param every: number of updates between two checkpoints
    :param keep: number of checkpoints that stay; a second one helps if a disk damages the last
    :param verbose: 0 no output, 1 names each file
    :raises ValueError: if ``every`` or ``keep`` is not an integer >= 1
    """

    leaves_policy = True
    """Whether rollouts need not look for changes of the policy that this callback makes."""

    def __init__(self, folder: str | Path, every: int = 10, keep: int = 2, verbose: int = 0) -> None:
        super().__init__(verbose)
        check("every", every, integer(1))
        check("keep", keep, integer(1))
        self.folder = Path(folder)
        self.every = int(every)
        self.keep = int(keep)
        self._updates_since = 0
        self._ended = False
        self._model_file: bytes | None = None
        self._environments: Environments | None = None
        self._earlier_handler: Any = None
        self._lock: FolderLock | None = None

    def _on_training_start(self) -> None:
        if not hasattr(self.model, "run_folders"):
            raise TypeError(f"ResumeCallback saves runs of TRPO and its variants, not of {type(self.model).__name__}")
        if self._workers.rank == 0:
            self._prepare_folder()
        self._model_file = None  # an earlier `learn` may have had other arguments
        try:
            self._environments = Environments(self.training_env)
        except ValueError as error:
            self._environments = None
            self.logger.warn(f"A resumed run will reset its environments: {error}")
        if threading.current_thread() is threading.main_thread():
            self._earlier_handler = signal.signal(signal.SIGTERM, self._end)

    @property
    def _workers(self) -> Workers:
        """Return the processes that share the run, of which the first writes the checkpoints of all."""
        model: Any = self.model
        workers: Workers = model.workers
        return workers

    def _prepare_folder(self) -> None:
        """Make the folder, or refuse it."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`folder` must be a folder or a path where there is nothing, and {self.folder} is a file")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder)
        self._refuse_other_runs()
        for left_behind in self.folder.glob(".*.tmp"):  # by a kill
            left_behind.unlink(missing_ok=True)

    def _refuse_other_runs(self) -> None:
        """Refuse a folder whose checkpoints are not those of this run, or would count as newer than those to come."""
        model: Any = self.model
        present = checkpoints_in(self.folder)
        own = self.folder.resolve() in model.run_folders and (
            model.is_continued or model.num_timesteps >= steps_of(present[0])
        )
        if present and not own:
            raise ValueError(
                f"`folder` = {self.folder} holds the checkpoints of a run: continue it with `resume`, or choose another"
            )
        model.run_folders |= {self.folder.resolve()}

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ended = True

    def release(self) -> bool:
        """
        Leave SIGTERM to the program again, and the folder to other runs. The model calls this when ``learn`` ends, also by
        an error.

        :return: whether there was a SIGTERM
        """
        if self._earlier_handler is not None:
            signal.signal(signal.SIGTERM, self._earlier_handler)
            self._earlier_handler = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        ended, self._ended = self._ended, False
        return ended

    def _on_step(self) -> bool:
        return True

    def before_rollout(self, root: BaseCallback, after_update: bool) -> None:
        """
        Save the run if it is time to. The model calls this when everything else that begins a rollout is done.

        :param root: the callback that holds all others
        :param after_update: whether an update was made since the last call
        :raises SystemExit: after SIGTERM, with :data:`EXIT_CODE`
        :raises OSError: if the file cannot be written
        """
        self._updates_since += after_update
        self._ended = self._workers.any(self._ended)
        if self._updates_since >= self.every or self._ended or not after_update:
            self._save(root)
            self._updates_since = 0
        if self._ended:
            raise SystemExit(EXIT_CODE)

    def _save(self, root: BaseCallback) -> None:
        model: Any = self.model
        workers = self._workers
        state = save_run(model, self._environments, root, ResumeCallback)
        own = write_state(part_of_other_rank(state)) if workers.rank > 0 else b""
        n_envs, parts = zip(*workers.gather((model.n_envs, own)), strict=True)
        if workers.rank > 0:
            return
        if self._model_file is None:
            self._model_file = model_file(model)
        about = {**describe_run(model, n_envs), "folders": sorted(map(str, model.run_folders))}
        checkpoint = Checkpoint(about, self._model_file, state, parts[1:])
        path = write_checkpoint(self.folder, model.num_timesteps, checkpoint, self.keep)
        if self.verbose >= 1:
            print(f"Saved the run to {path}")
