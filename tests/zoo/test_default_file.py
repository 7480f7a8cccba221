"""RL Zoo's own commands read this package's hyperparameters unless a file is named."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import rl_zoo3
import yaml
from rl_zoo3.exp_manager import ExperimentManager

from sb3_trpo.zoo import ALGORITHMS, hyperparameters_file

pytestmark = pytest.mark.filterwarnings("ignore")  # of the Zoo's libraries
ZOOS = Path(rl_zoo3.__file__).parent / "hyperparams" / "trpo.yml"


def manager(algorithm: str, folder: Path, env_id: str = "CartPole-v1", **kwargs: Any) -> ExperimentManager:
    return ExperimentManager(
        argparse.Namespace(), algorithm, env_id, str(folder), eval_freq=-1, device="cpu", verbose=0, **kwargs
    )


@pytest.mark.parametrize("algorithm", ["trpo", "vine_trpo"])
def test_without_a_file_the_entries_are_ours(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = manager(algorithm, tmp_path, "Pendulum-v1").setup_experiment()
    assert experiment is not None
    model, settings = experiment
    entries = yaml.safe_load(hyperparameters_file(algorithm).read_text())
    assert type(model) is ALGORITHMS[algorithm]
    assert dict(settings) == entries.get("Pendulum-v1", entries["default"])
    assert "Using the hyperparameters of sb3-trpo" in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_has_its_file(algorithm: str, tmp_path: Path) -> None:
    assert manager(algorithm, tmp_path).config == str(hyperparameters_file(algorithm))


def test_a_file_that_the_user_names_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text("CartPole-v1:\n  n_timesteps: 10\n  policy: MlpPolicy\n  target_kl: 0.5\n")
    experiment = manager("trpo", tmp_path, config=str(own)).setup_experiment()
    assert experiment is not None
    assert dict(experiment[1]) == {"n_timesteps": 10, "policy": "MlpPolicy", "target_kl": 0.5}
    assert manager("ppo", tmp_path).config == str(ZOOS.with_name("ppo.yml"))


def test_the_zoos_own_file_means_something_else(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="`target_kl` and `cg_damping` average over the action dimensions"):
        assert manager("trpo", tmp_path, config=str(ZOOS)).config == str(ZOOS)
