"""RL Zoo: registration, and the entries of the hyperparameter file."""

import argparse
import csv
import inspect
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import optuna
import pytest
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_trpo import TRPO, MaskableTRPO, VineTRPO
from sb3_trpo.zoo import ALGORITHMS, hyperparameters_file

# the Zoo and the libraries that it plots and searches with warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")

ENTRIES: dict[str, dict[str, Any]] = yaml.safe_load(hyperparameters_file().read_text())
COMMON = ENTRIES.pop("common")
NOT_IN_ENTRIES = {
    *("env", "rollout_buffer_class", "rollout_buffer_kwargs", "policy_kwargs", "chunk_size", "unsupported"),
    *("stats_window_size", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model"),
    *("distributed", "freeze_normalization"),
}
"""Arguments of TRPO that do not shape the training, and those of the policy."""
MUJOCO = [
    *("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedPendulum", "InvertedDoublePendulum"),
    *("Pusher", "Reacher", "Swimmer", "Walker2d"),
]


def manager(env_id: str, folder: Path, **kwargs: Any) -> ExperimentManager:
    return ExperimentManager(
        argparse.Namespace(),
        "trpo",
        env_id,
        str(folder),
        config=str(hyperparameters_file()),
        device="cpu",
        verbose=0,
        **kwargs,
    )


def test_registered() -> None:
    assert ALGOS["trpo"] is TRPO
    assert ALGOS["vine_trpo"] is VineTRPO
    assert ALGOS["maskable_trpo"] is MaskableTRPO
    assert hyperparameters_file("vine_trpo") == hyperparameters_file()
    assert HYPERPARAMS_SAMPLER["trpo"].__module__ == HYPERPARAMS_CONVERTER["trpo"].__module__ == "sb3_trpo.zoo.search_space"


@pytest.mark.parametrize(
    "env_id",
    [
        *(name for name in ENTRIES if name not in ("default", "atari", "Pusher-v4")),
        *("PongNoFrameskip-v4", "ALE/Pong-v5"),
    ],
)
def test_every_entry_builds_a_model(env_id: str, tmp_path: Path) -> None:
    experiment = manager(env_id, tmp_path, eval_freq=-1).setup_experiment()
    assert experiment is not None
    model, saved = experiment
    assert type(model) is TRPO
    assert model.env is not None
    assert model.n_envs == saved.get("n_envs", 1)
    for name in saved.keys() & vars(model).keys() - {"policy", "policy_kwargs", "learning_rate"}:
        assert getattr(model, name) == saved[name], name
    obs = model.env.reset()
    assert isinstance(obs, np.ndarray)
    assert np.isfinite(model.predict(obs, deterministic=True)[0]).all()
    model.env.close()


def test_every_mujoco_task_has_an_entry_for_both_versions() -> None:
    for name in MUJOCO:
        assert ENTRIES[f"{name}-v5"] == ENTRIES[f"{name}-v4"]


def test_every_entry_is_marked() -> None:
    lines = hyperparameters_file().read_text().splitlines()
    for i, line in enumerate(lines):
        if line[:1].isalpha() and not line.startswith(("default", "common")) and "*" not in line:
            marks = [above for above in lines[max(0, i - 3) : i] if above.startswith(("# Tuned", "# To be tuned"))]
            assert marks, line


@pytest.mark.parametrize("entry", ["common", *ENTRIES])
def test_every_entry_has_every_argument(entry: str) -> None:
    settings = COMMON if entry == "common" else ENTRIES[entry]
    missing = inspect.signature(TRPO).parameters.keys() - settings.keys() - NOT_IN_ENTRIES
    assert not missing or entry == "default"
    assert entry == "default" or settings["policy"] == "CnnPolicy" or "log_std_init=" in settings["policy_kwargs"]


def test_budgets_are_those_of_the_rows_that_were_kept() -> None:
    runs: dict[str, list[int]] = {}
    with (Path(__file__).parents[2] / "benchmarks" / "results" / "mujoco_tuning.csv").open() as file:
        for row in csv.DictReader(file):
            if row["algorithm"] == "sb3_trpo":
                runs.setdefault(row["env"], []).append(int(row["step"]))
    marked = re.findall(r"# Tuned: (\d+) runs, (\d+) million env steps\n([\w-]+):", hyperparameters_file().read_text())
    assert len(marked) == 6
    for n_runs, millions, env_id in marked:
        assert (int(n_runs), int(millions)) == (len(runs[env_id]), round(sum(runs[env_id]) / 1e6)), env_id


def test_an_unlisted_env_gets_the_default_entry(tmp_path: Path) -> None:
    gym.register("Unlisted-v0", entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv")
    experiment = manager("Unlisted-v0", tmp_path, eval_freq=-1).setup_experiment()
    assert experiment is not None
    assert vars(experiment[0])["cg_max_steps"] == 10


@pytest.mark.parametrize("name", ["npg", "kl_penalty_trpo", "dual_trpo"])
def test_other_step_rules_have_their_entries_and_their_search_space(name: str) -> None:
    cls = ALGORITHMS[name]
    assert ALGOS[name] is cls
    entries = yaml.safe_load(hyperparameters_file(name).read_text())
    assert entries.keys() == {"default", "common", "CartPole-v1", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5"}
    settings = {key: value for key, value in entries["Hopper-v5"].items() if key != "n_timesteps"}
    assert settings.keys() >= set(cls.extra_arguments)
    model, default = cls(env="CartPole-v1", device="cpu", **settings), cls("MlpPolicy", "CartPole-v1", device="cpu")
    assert all(getattr(model, key) == getattr(default, key) for key in cls.extra_arguments)
    assert (model.target_kl, model.cg_damping, model.scale_target_kl) == (0.03, 1.0, False)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    drawn = HYPERPARAMS_SAMPLER[name](trial, 0, 1, {})
    again = HYPERPARAMS_CONVERTER[name](trial.params)
    assert type(cls(env="CartPole-v1", policy="MlpPolicy", device="cpu", **drawn)) is cls
    assert again.keys() == drawn.keys()
    assert all(again[key] == drawn[key] for key in drawn.keys() - {"policy_kwargs"})


def test_only_registered_names_have_a_file() -> None:
    assert hyperparameters_file("vine_trpo") == hyperparameters_file()
    with pytest.raises(ValueError, match=r"`algorithm` must be one of trpo, vine_trpo, npg, .*, not 'ppo'"):
        hyperparameters_file("ppo")


def test_search_space_of_continuous_actions() -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    settings = HYPERPARAMS_SAMPLER["trpo"](trial, 1, 1, {})
    model = TRPO(env="Pendulum-v1", policy="MlpPolicy", device="cpu", **settings)
    assert model.policy.log_std_init == trial.params["log_std_init"]
    assert trial.user_attrs["gamma"] == pytest.approx(1 - trial.params["one_minus_gamma"])


def test_entries_of_the_masked_algorithm() -> None:
    entries = yaml.safe_load(hyperparameters_file("maskable_trpo").read_text())
    assert entries.keys() == {"default", "Taxi-v4", "Taxi-v3"}
    taxi = entries["Taxi-v4"]
    assert taxi == entries["Taxi-v3"]
    without_gsde = NOT_IN_ENTRIES | {"use_sde", "sde_sample_freq", "clipped_gaussian"}
    assert not inspect.signature(TRPO).parameters.keys() - taxi.keys() - without_gsde
    arguments = {name: value for name, value in taxi.items() if name not in ("n_envs", "n_timesteps")}
    env = gym.make("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3")
    assert MaskableTRPO(env=env, **arguments).mask_source == "info"
