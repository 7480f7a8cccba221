"""Make models and environments as RL Zoo does, for sb3-trpo and for the peers."""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3
import rl_zoo3.import_envs  # registers the environments without velocities
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.arms import ALGORITHMS
from benchmarks.common.command_line import parse_settings
from benchmarks.common.environments import is_game
from sb3_trpo import TRPO
from sb3_trpo.command_line.resume import resumed_training, unfinished_run
from sb3_trpo.zoo import hyperparameters_file


def hyperparameters(algorithm: str, env_id: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """
    Read the entry that RL Zoo would read: from sb3-trpo's own file or from the Zoo's, where v4 serves for v5 and so on.

    :param algorithm: a name of :data:`~benchmarks.common.arms.ALGORITHMS`
    :param env_id: environment id
    :param settings: ``NAME=VALUE`` that take precedence
    :return: hyperparameters by name
    """
    if issubclass(ALGORITHMS[algorithm].cls, TRPO):
        path = hyperparameters_file(ALGORITHMS[algorithm].zoo_name)
    else:
        path = Path(rl_zoo3.__file__).parent / "hyperparams" / f"{ALGORITHMS[algorithm].zoo_name}.yml"
    entries = yaml.safe_load(path.read_text())
    name, _, version = env_id.rpartition("-v")
    earlier = [f"{name}-v{number}" for number in range(int(version) - 1, -1, -1)] if version.isdigit() else []
    names = ["atari"] if is_game(env_id) else [env_id, *earlier, "default"]
    entry = next(entries[name] for name in names if name in entries)
    return {**entry, **parse_settings(settings)}


def set_up(
    algorithm: str,
    env_id: str,
    seed: int,
    folder: Path,
    entry: dict[str, Any],
    device: str = "cpu",
    vec_env: str = "dummy",
    resume: bool = False,
    progress: bool = False,
) -> tuple[ExperimentManager, OnPolicyAlgorithm]:
    """
    Make a model and its environments, and write the hyperparameters to the folder once they are made.

    With ``resume`` this package's algorithms save their runs, and continue an unfinished run of the folder.

    :param algorithm: a name of :data:`~benchmarks.common.arms.ALGORITHMS`
    :param env_id: environment id
    :param seed: seed of the run
    :param folder: where RL Zoo writes to
    :param entry: hyperparameters, as in RL Zoo's files
    :param device: of the model
    :param vec_env: ``dummy``, or ``subproc`` for a process per environment
    :param resume: whether the run can be resumed
    :param progress: whether to show a progress bar
    :return: RL Zoo's manager, and the model with its environments
    :raises gymnasium.error.Error: if there is no such environment
    :raises SystemExit: if the unfinished run has other settings
    """
    gym.spec(env_id)
    cls, zoo_name = ALGORITHMS[algorithm].cls, ALGORITHMS[algorithm].zoo_name
    ALGOS[zoo_name] = cls  # two of them have one name there
    config = yaml.safe_dump({env_id: entry})
    with tempfile.TemporaryDirectory() as temporary:
        config_path = Path(temporary) / "hyperparameters.yml"
        config_path.write_text(config)
        manager = ExperimentManager(
            argparse.Namespace(),
            zoo_name,
            env_id,
            str(folder / "zoo"),
            eval_freq=-1,
            log_interval=-1,
            seed=seed,
            config=str(config_path),
            device=device,
            vec_env_type=vec_env,
            eval_env_kwargs=entry.get("env_kwargs"),
            verbose=0,
            show_progress=progress,
        )
        resumable = resume and issubclass(cls, TRPO)
        if resumable and unfinished_run(Path(manager.log_path), str(manager.env_name)) is not None:
            refuse_other_settings(folder, env_id, seed, entry)
        with resumed_training() if resumable else nullcontext():
            experiment = manager.setup_experiment()
    assert experiment is not None
    model = experiment[0]
    assert isinstance(model, OnPolicyAlgorithm)
    assert type(model) is cls
    (folder / "hyperparameters.yml").write_text(yaml.safe_dump({env_id: entry, "seed": seed}))
    return manager, model


def refuse_other_settings(folder: Path, env_id: str, seed: int, entry: dict[str, Any]) -> None:
    """
    Keep a run from being continued with other settings.

    :param folder: where the run is
    :param env_id: environment id
    :param seed: seed of the run
    :param entry: hyperparameters
    :raises SystemExit: if the run in the folder has other hyperparameters or another seed, or a schedule and another length
    """
    run = yaml.safe_load((folder / "hyperparameters.yml").read_text())
    before = run[env_id]
    free = set() if any(str(value).startswith("lin_") for value in entry.values()) else {"n_timesteps"}
    for name in sorted((before.keys() | entry.keys()) - free):
        if before.get(name) != entry.get(name):
            raise SystemExit(f"the run in {folder} has {name} = {before.get(name)!r}, not {entry.get(name)!r}")
    if run["seed"] != seed:
        raise SystemExit(f"the run in {folder} has the seed {run['seed']}, not {seed}")


def zoo_model(algorithm: str, env_id: str, seed: int, settings: Sequence[str], device: str = "cpu") -> OnPolicyAlgorithm:
    """
    Make a model that leaves no files and prints nothing.

    :param algorithm: a name of :data:`~benchmarks.common.arms.ALGORITHMS`
    :param env_id: environment id
    :param seed: seed of the run
    :param settings: ``NAME=VALUE`` that take precedence over RL Zoo's entry
    :param device: of the model
    :return: the model with its environments
    """
    entry = hyperparameters(algorithm, env_id, settings)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):  # the Zoo prints the hyperparameters
        return set_up(algorithm, env_id, seed, Path(folder), entry, device)[1]
