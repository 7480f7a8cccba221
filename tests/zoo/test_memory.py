"""RL Zoo with RecurrentTRPO: registration, entries, and the search space."""

import argparse
import inspect
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_trpo import MlpLstmPolicy, RecurrentTRPO
from sb3_trpo.zoo import hyperparameters_file
from tests.recurrent_helpers import make_env
from tests.zoo.test_zoo import NOT_IN_ENTRIES

pytestmark = pytest.mark.filterwarnings("ignore")

FILE = hyperparameters_file("trpo_lstm")
ENTRIES: dict[str, dict[str, Any]] = {
    name: entry for name, entry in yaml.safe_load(FILE.read_text()).items() if name not in ("default", "common")
}


def test_registered() -> None:
    assert ALGOS["trpo_lstm"] is RecurrentTRPO
    assert FILE.name == "trpo_lstm.yml"
    assert hyperparameters_file("vine_trpo") == hyperparameters_file()
    assert set(ENTRIES) == {
        "CartPoleNoVel-v1",
        "PendulumNoVel-v1",
        "MountainCarContinuousNoVel-v0",
        "LunarLanderNoVel-v3",
    }


@pytest.mark.parametrize("env_id", ENTRIES)
def test_every_entry_builds_a_model(env_id: str, tmp_path: Path) -> None:
    experiment = ExperimentManager(
        argparse.Namespace(),
        "trpo_lstm",
        env_id,
        str(tmp_path),
        config=str(FILE),
        device="cpu",
        verbose=0,
        eval_freq=-1,
    ).setup_experiment()
    assert experiment is not None
    model, saved = experiment
    assert type(model) is RecurrentTRPO
    assert type(model.policy) is MlpLstmPolicy
    missing = inspect.signature(RecurrentTRPO).parameters.keys() - ENTRIES[env_id].keys() - NOT_IN_ENTRIES
    assert not missing
    for name in saved.keys() & vars(model).keys() - {"policy", "policy_kwargs", "learning_rate"}:
        assert getattr(model, name) == saved[name], name
    assert model.env is not None
    model.env.close()


def test_every_entry_is_marked() -> None:
    lines = FILE.read_text().splitlines()
    for env_id in ENTRIES:
        assert lines[lines.index(f"{env_id}:") - 1] == "# To be tuned"


@pytest.mark.parametrize("n_actions", [0, 2])
def test_search_space(n_actions: int) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    settings = HYPERPARAMS_SAMPLER["trpo_lstm"](trial, n_actions, 3, {})
    assert settings == HYPERPARAMS_CONVERTER["trpo_lstm"](trial.params)
    model = RecurrentTRPO("MlpLstmPolicy", make_env(), device="cpu", **settings)
    for name in ("lstm_hidden_size", "enable_critic_lstm", "rnn_type"):
        assert getattr(model.policy, name) == trial.params[name]
    assert trial.user_attrs["n_steps"] == model.n_steps
    assert trial.user_attrs["gamma"] == pytest.approx(1 - trial.params["one_minus_gamma"])
