"""Models and environments as RL Zoo makes them, for ours and for the peers."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.train import algorithms, parse_settings
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.zoo import hyperparameters_file

ZOO_NAMES = {"sb3_trpo": "trpo", "sb3_vine_trpo": "vine_trpo", "sb3_contrib_trpo": "trpo", "sb3_ppo": "ppo"}
CLASSES: dict[str, type[BaseAlgorithm]] = {**algorithms(), "sb3_vine_trpo": VineTRPO}


def training_parser(description: str, algorithms: Sequence[str]) -> argparse.ArgumentParser:
    """
    :param description: what the command does
    :param algorithms: what it can train, of :data:`ZOO_NAMES`
    :return: a parser of what every training takes
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--algo", choices=algorithms, default="sb3_trpo")
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters, as YAML values")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser


def hyperparameters(algorithm: str, env_id: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """
    :param algorithm: one of :data:`ZOO_NAMES`
    :param env_id: environment id
    :param settings: ``NAME=VALUE`` that take precedence
    :return: the entry that RL Zoo would read: of sb3-trpo's own file or of the Zoo's, where v4 serves for v5
    """
    if algorithm in ("sb3_trpo", "sb3_vine_trpo"):
        path = hyperparameters_file()
    else:
        path = Path(rl_zoo3.__file__).parent / "hyperparams" / f"{ZOO_NAMES[algorithm]}.yml"
    entries = yaml.safe_load(path.read_text())
    atari = "NoFrameskip" in env_id or env_id.startswith("ALE/")
    names = ["atari"] if atari else [env_id, env_id.replace("-v5", "-v4"), "default"]
    entry = next(entries[name] for name in names if name in entries)
    return {**entry, **parse_settings(list(settings))}


def set_up(
    algorithm: str,
    env_id: str,
    seed: int,
    folder: Path,
    entry: dict[str, Any],
    device: str = "cpu",
    vec_env: str = "dummy",
) -> tuple[ExperimentManager, OnPolicyAlgorithm]:
    """
    :param algorithm: one of :data:`ZOO_NAMES`
    :param env_id: environment id
    :param seed: seed of the run
    :param folder: where RL Zoo writes to
    :param entry: hyperparameters, as in RL Zoo's files; in the folder once the model is made
    :param device: of the model
    :param vec_env: ``dummy``, or ``subproc`` for a process per environment
    :return: RL Zoo's manager, and the model with its environments
    :raises gymnasium.error.Error: if there is no such environment
    """
    gym.spec(env_id)
    ALGOS[ZOO_NAMES[algorithm]] = CLASSES[algorithm]  # two of them have one name there
    config = yaml.safe_dump({env_id: entry})
    with tempfile.TemporaryDirectory() as temporary:
        config_path = Path(temporary) / "hyperparameters.yml"
        config_path.write_text(config)
        manager = ExperimentManager(
            argparse.Namespace(),
            ZOO_NAMES[algorithm],
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
        )
        experiment = manager.setup_experiment()
    assert experiment is not None
    model = experiment[0]
    assert isinstance(model, OnPolicyAlgorithm)
    assert type(model) is CLASSES[algorithm]
    (folder / "hyperparameters.yml").write_text(config)
    return manager, model
