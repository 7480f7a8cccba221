"""Keeps the statistics of ``VecNormalize`` with the model that they belong to: the Zoo keeps one file for a run."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rl_zoo3.callbacks import SaveVecNormalizeCallback

from sb3_trpo.saving.statistics import NAME, all_of_best, candidates, of_best, statistics_of


class SaveBestStatistics(SaveVecNormalizeCallback):
    """Also saves the statistics of the best model beside it, because the end of the training replaces those of the Zoo."""

    def _on_step(self) -> bool:
        statistics = self.model.get_vec_normalize_env()
        if statistics is not None:
            folder = Path(self.save_path).parent
            path = of_best(folder, self.model.num_timesteps)
            statistics.save(str(path))
            for earlier in set(all_of_best(folder)) - {path}:
                earlier.unlink()
        return bool(super()._on_step())


@contextmanager
def statistics_in_a_folder(statistics: Path | None, name: str) -> Iterator[Path]:
    """
    Make a temporary folder with a subfolder in which the Zoo finds some statistics, or none.

    :param statistics: their file
    :param name: name of the subfolder
    :return: the subfolder, which exists within the block
    """
    with TemporaryDirectory() as folder:
        subfolder = Path(folder) / name
        subfolder.mkdir()
        if statistics is not None:
            shutil.copy(statistics, subfolder / NAME)
        yield subfolder


def continue_normalization(maybe_normalize: Any) -> Any:
    """Load the statistics of the very model that is trained further; without one, those of no folder at all."""

    def patched(manager: Any, env: Any, eval_env: bool) -> Any:
        agent = Path(manager.trained_agent)
        statistics = statistics_of(agent) if manager.continue_training else None
        if manager.continue_training and manager.normalize and statistics is None:
            raise ValueError(
                f"`normalize` = {manager.normalize} needs the statistics of VecNormalize that were saved with {agent}, and "
                f"there is no {next(candidates(agent))}; continue from another file, or pass `-params normalize:False`"
            )
        with statistics_in_a_folder(statistics, manager.env_name) as folder:
            before, manager.trained_agent = manager.trained_agent, str(folder.with_name("model.zip"))
            try:
                return maybe_normalize(manager, env, eval_env)
            finally:
                manager.trained_agent = before

    return patched


class ChosenModel:
    """Remembers the model that a script of the Zoo has chosen, and gives its environment the statistics of that model."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def remember(self, get_model_path: Any) -> Any:
        """
        Remember the path that the Zoo's function returns.

        :param get_model_path: the function
        :return: the patched function
        """

        def patched(*args: Any, **kwargs: Any) -> Any:
            chosen = get_model_path(*args, **kwargs)
            self.path = Path(chosen[1])
            return chosen

        return patched

    def normalize(self, create_test_env: Any) -> Any:
        """
        Load the statistics of the model.

        :param create_test_env: the Zoo's function that makes the environment
        :return: the patched function
        """

        def patched(*args: Any, **kwargs: Any) -> Any:
            stats_path = kwargs.get("stats_path")
            if self.path is None or stats_path is None or not (kwargs.get("hyperparams") or {}).get("normalize"):
                return create_test_env(*args, **kwargs)
            statistics = statistics_of(self.path)
            if statistics is None:
                common = Path(stats_path) / NAME
                if common.is_file():
                    warnings.warn(
                        f"no statistics of VecNormalize were saved with {self.path}: using {common}, which may be of another "
                        "model of the run",
                        stacklevel=2,
                    )
                return create_test_env(*args, **kwargs)
            with statistics_in_a_folder(statistics, "statistics") as folder:
                return create_test_env(*args, **{**kwargs, "stats_path": str(folder)})

        return patched
