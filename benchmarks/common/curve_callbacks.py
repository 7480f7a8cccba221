"""Write ``curve.csv`` while a model learns: from evaluations, or from the games of the training."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from sb3_trpo import evaluate_policy
from sb3_trpo.saving.atomic import written_aside

COLUMNS = ["algorithm", "env", "seed", "step", "mean_return", "std_return", "train_seconds", "updates"]
GAMES_COLUMNS = [*COLUMNS[:6], "games", *COLUMNS[6:]]


class Stopwatch:
    """
    Measures laps. A checkpoint of a run does not hold it, so that the time between two programs is in none.

    :param clock: what the time is read from
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()

    def lap(self) -> float:
        """Return the seconds since the last lap, and begin another."""
        began, self._began = self._began, self._clock()
        return self._began - began


class CurveFile(BaseCallback):
    """
    Keeps a CSV file with the rows of a run. A run that is resumed keeps the rows up to its checkpoint.

    :param path: the CSV file
    :param columns: its header
    :param labels: values of the first columns
    :param clock: what ``train_seconds`` is read from
    """

    def __init__(self, path: Path, columns: list[str], labels: list[Any], clock: Callable[[], float]) -> None:
        super().__init__()
        self.path = path
        self.columns = columns
        self.labels = labels
        self.watch = Stopwatch(clock)
        self.seconds = 0.0

    def _on_training_start(self) -> None:
        rows = []
        if self.num_timesteps and self.path.exists():  # what came after the checkpoint is done again
            with self.path.open() as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self.num_timesteps]
        _write(self.path, b"", self.columns, *([row[name] for name in self.columns] for row in rows))

    def _on_rollout_start(self) -> None:
        self.seconds += self.watch.lap()

    def append(self, *values: Any) -> None:
        """Append a row: the labels, the step, these values, the seconds of training and the number of updates."""
        row = [*self.labels, self.model.num_timesteps, *values, f"{self.seconds:.1f}", updates(self.model)]
        _append(self.path, row)


class CurveCallback(CurveFile):
    """
    Evaluates every ``eval_freq`` env steps and appends a row to a CSV file; the time of the evaluations is not counted.

    :param path: the CSV file
    :param labels: values of the first columns
    :param eval_env: environment to evaluate in; statistics of ``VecNormalize`` are copied from the training environment
    :param eval_freq: env steps between two evaluations
    :param episodes: episodes of an evaluation
    :param clock: what ``train_seconds`` is read from
    :param deterministic: whether the evaluated policy takes its most likely action
    """

    def __init__(
        self,
        path: Path,
        labels: list[Any],
        eval_env: VecEnv,
        eval_freq: int,
        episodes: int,
        clock: Callable[[], float] = time.perf_counter,
        deterministic: bool = True,
    ) -> None:
        super().__init__(path, COLUMNS, labels, clock)
        self.deterministic = deterministic
        self.eval_env = eval_env
        self.eval_freq = eval_freq
        self.episodes = episodes
        self.next_step = eval_freq

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.next_step:
            self.next_step += self.eval_freq
            self.evaluate(self.episodes)
        return True

    def evaluate(self, episodes: int) -> tuple[float, float]:
        """
        Evaluate the model as it is and append the row.

        :param episodes: episodes to play
        :return: mean and standard deviation of their returns
        """
        self.seconds += self.watch.lap()
        sync_envs_normalization(self.training_env, self.eval_env)
        model: Any = self.model  # a peer's too; where ours was trained with masks, it is evaluated with them
        returns, _ = evaluate_policy(
            model, self.eval_env, episodes, deterministic=self.deterministic, return_episode_rewards=True
        )
        self.append(f"{np.mean(returns):.2f}", f"{np.std(returns):.2f}")
        self.watch.lap()
        return float(np.mean(returns)), float(np.std(returns))


class GamesCallback(CurveFile):
    """
    Appends a row to a CSV file every ``log_freq`` env steps.

    :param folder: where the file is
    :param labels: values of the first columns
    :param log_freq: env steps between two rows
    :param clock: what ``train_seconds`` is read from
    """

    def __init__(self, folder: Path, labels: list[Any], log_freq: int, clock: Callable[[], float]) -> None:
        super().__init__(folder / "curve.csv", GAMES_COLUMNS, labels, clock)
        self.log_freq = log_freq
        self.returns: list[float] = []

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self.next_step = self.num_timesteps + self.log_freq

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_start(self) -> None:
        super()._on_rollout_start()
        if self.num_timesteps < self.next_step:
            return
        self.next_step += self.log_freq
        mean, std = (float(f(self.returns)) if self.returns else float("nan") for f in (np.mean, np.std))
        self.append(f"{mean:.2f}", f"{std:.2f}", len(self.returns))
        self.returns = []


def updates(model: BaseAlgorithm) -> int:
    """
    Count the rollouts that a model's policy was updated with.

    :param model: a model
    :return: their number
    """
    n_updates: int = model._n_updates
    return n_updates // getattr(model, "n_epochs", 1)  # PPO counts its epochs


def _append(path: Path, row: list[Any]) -> None:
    _write(path, path.read_bytes(), row)


def _write(path: Path, before: bytes, *rows: list[Any]) -> None:
    """Write a file anew with further rows: a kill leaves the earlier file, without a part of a row."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    with written_aside(path) as aside:
        aside.write(before + text.getvalue().encode())
