"""``torchrun -m sb3_trpo train``: one training of RL Zoo, shared by several processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sb3_trpo.processes.launch import is_launched, join
from sb3_trpo.step.workers import Workers

_SEARCHES = ("-optimize", "--optimize-hyperparameters")
_OF_THE_FIRST = ("--track", "-P", "--progress")
"""Options that show or send the progress, which the first process does."""


@contextmanager
def shared_training(command: str, options: Sequence[str]) -> Iterator[list[str]]:
    """
    Let the Zoo's training share its run with the other processes that ``torchrun`` has started, if there are any.

    The first process logs, evaluates and saves as usual. The others write to a temporary folder and print nothing.

    :param command: the command
    :param options: its options
    :return: the options for this process
    :raises SystemExit: for a command or an option that cannot be shared
    """
    if not is_launched():
        yield list(options)
        return
    if command != "train" or any(option in _SEARCHES for option in options):
        raise SystemExit("sb3-trpo: of the commands, only `train` without `-optimize` can be started by torchrun")
    workers = join()
    options = [*options, *_common_seed(workers, options)]
    manager_class = import_module("rl_zoo3.exp_manager").ExperimentManager
    setup = manager_class.setup_experiment
    manager_class.setup_experiment = _sharing(setup, workers)
    try:
        if workers.rank == 0:
            yield options
            return
        with TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield [*(option for option in options if option not in _OF_THE_FIRST), "--log-folder", folder]
    finally:
        manager_class.setup_experiment = setup


def _common_seed(workers: Workers, options: Sequence[str]) -> list[str]:
    """Choose the seed that the Zoo would choose apart in each process."""
    seed = workers.gather(int(np.random.default_rng().integers(2**31)))[0]
    return [] if any(option.split("=")[0] == "--seed" for option in options) else ["--seed", str(seed)]


def _sharing(setup: Callable[[Any], Any], workers: Workers) -> Callable[[Any], Any]:
    def patched(manager: Any) -> Any:
        algorithms = import_module("rl_zoo3.exp_manager").ALGOS
        algorithm = algorithms[manager.algo]
        for name in ("eval_freq", "save_freq"):  # they count env steps, and a step of this process is one of each
            if getattr(manager, name) > 0:
                setattr(manager, name, max(1, getattr(manager, name) // workers.size))
        algorithms[manager.algo] = _Shared(algorithm)
        try:
            return setup(manager)
        finally:
            algorithms[manager.algo] = algorithm

    return patched


class _Shared:
    """
    Stands in for an algorithm's class while the Zoo makes its model.

    :param algorithm: the class
    """

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self.resume = partial(algorithm.resume, distributed=True)

    def __call__(self, **kwargs: Any) -> Any:
        return self._algorithm(**kwargs, distributed=True)

    def load(self, *args: Any, **kwargs: Any) -> Any:
        return self._algorithm.load(*args, **kwargs, distributed=True)


def choice_of_the_first(choice: str | None) -> str | None:
    """
    Let the first process choose for all of them.

    :param choice: what this process would choose
    :return: what the first one chooses
    """
    chosen: str | None = join().gather(choice)[0] if is_launched() else choice
    return chosen


def is_first() -> bool:
    """
    Tell whether this process writes the files.

    :return: whether it does
    """
    return not is_launched() or join().rank == 0
