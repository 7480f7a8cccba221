"""Write ``run.json``: the command of a run, its result and the versions of the packages."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch as th

PACKAGES = ["sb3-trpo", "stable-baselines3", "sb3-contrib", "torch", "gymnasium", "mujoco", "numpy"]
ZOO_PACKAGES = [*PACKAGES, "rl_zoo3"]


def write_run(folder: Path, module: str, arguments: list[str], result: dict[str, Any], packages: Sequence[str]) -> None:
    """
    Write ``run.json``.

    :param folder: where to write
    :param module: the module that was run
    :param arguments: its command line
    :param result: scores, and hyperparameters where the command does not tell them
    :param packages: packages whose versions are written
    """
    run = {
        "command": ["python", "-m", module, *arguments],
        **result,
        "threads": th.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    (folder / "run.json").write_text(json.dumps(run, indent=1) + "\n")
