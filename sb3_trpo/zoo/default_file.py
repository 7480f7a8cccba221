"""Lets RL Zoo's own commands read this package's hyperparameters, unless the user names a file."""

import inspect
import warnings
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any

import rl_zoo3
from rl_zoo3.exp_manager import ExperimentManager

_OTHER_UNITS = (
    "RL Zoo's trpo.yml is for sb3-contrib's TRPO, whose `target_kl` and `cg_damping` average over the action dimensions; "
    "here they are sums"
)


def use_own_hyperparameters(algorithms: Collection[str], file_of: Callable[[str], Path]) -> None:
    """
    Make RL Zoo's ``ExperimentManager`` read this package's files for its algorithms.

    :param algorithms: their names in RL Zoo
    :param file_of: finds the file of an algorithm
    """
    make: Any = ExperimentManager.__init__
    signature = inspect.signature(make)

    @wraps(make)
    def init(manager: ExperimentManager, *args: Any, **kwargs: Any) -> None:
        make(manager, *args, **kwargs)
        if manager.algo not in algorithms:
            return
        chosen = signature.bind(manager, *args, **kwargs).arguments.get("config")
        if chosen is None:
            manager.config = str(file_of(manager.algo))
            print(f"Using the hyperparameters of sb3-trpo, because --conf-file is not given. {_OTHER_UNITS}.")
        elif Path(chosen).resolve() == Path(rl_zoo3.__file__).resolve().parent / "hyperparams" / "trpo.yml":
            warnings.warn(f"{_OTHER_UNITS}: leave out `--conf-file` = {chosen}", UserWarning, stacklevel=2)

    manager_class: Any = ExperimentManager
    manager_class.__init__ = init
