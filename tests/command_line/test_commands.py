"""The real commands of RL Zoo, on short budgets."""

import argparse
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from ale_py import AtariEnv
from huggingface_hub import repocard
from huggingface_hub.errors import EntryNotFoundError
from matplotlib import pyplot
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
from rl_zoo3.utils import StoreDict

from sb3_trpo import TRPO, DualTRPO, NaturalPolicyGradient, VineTRPO
from sb3_trpo.command_line.main import _ALGORITHMS, OWN, SCRIPTS, main
from sb3_trpo.zoo import ALGORITHMS, hyperparameters_file

# the Zoo and its libraries for plots and searches cause warnings
pytestmark = pytest.mark.filterwarnings("ignore")

ENTRIES: dict[str, dict[str, Any]] = yaml.safe_load(hyperparameters_file().read_text())
SHORT = ["--env", "CartPole-v1", "-n", "2048", "--seed", "1", "--device", "cpu", "--num-threads", "1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


@pytest.fixture
def trained(folder: Path) -> Path:
    main(["train", *SHORT, "--eval-freq", "1024", "--save-freq", "1024", "--verbose", "0"])
    return folder / "logs" / "trpo" / "CartPole-v1_1"


def test_train_writes_what_the_zoo_writes(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"CartPole-v1.zip", "best_model.zip", "evaluations.npz", "0.monitor.csv", "rl_model_1024_steps.zip"} <= names
    assert type(TRPO.load(trained / "CartPole-v1.zip")) is TRPO
    saved = yaml.load((trained / "CartPole-v1" / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    assert dict(saved) == ENTRIES["CartPole-v1"]


def test_params_and_schedules_pass_through(folder: Path) -> None:
    main(["train", *SHORT, "--eval-freq", "-1", "-params", "target_kl:'lin_0.03'", "learning_rate:'lin_0.001'", "n_steps:256"])
    model = TRPO.load(folder / "logs" / "trpo" / "CartPole-v1_1" / "CartPole-v1.zip")
    assert (model.target_kl, model.n_steps) == ("lin_0.03", 256)
    assert callable(model.learning_rate)


def test_tracking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Config(dict[str, Any]):
        setdefaults = dict.update

    run, wandb = SimpleNamespace(config=Config()), ModuleType("wandb")
    monkeypatch.setattr(wandb, "init", lambda **_: run, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    main(["train", *SHORT, "--eval-freq", "-1", "--track"])
    assert run.config["algo"] == "trpo"
    assert run.config["saved_hyperparams"] == ENTRIES["CartPole-v1"]
    assert len(list((folder / "runs").rglob("events*"))) == 1


def test_subproc_progress_and_vec_normalize(folder: Path) -> None:
    options = ["--env", "Pendulum-v1", "-n", "256", "--eval-freq", "-1", "--vec-env", "subproc", "-P", "--device", "cpu"]
    main(["train", *options, "-params", "n_steps:64", "normalize:True"])
    run = folder / "logs" / "trpo" / "Pendulum-v1_1"
    assert (run / "Pendulum-v1" / "vecnormalize.pkl").exists()


@pytest.mark.usefixtures("trained")
def test_enjoy(capsys: pytest.CaptureFixture[str]) -> None:
    main(["enjoy", "--env", "CartPole-v1", "--no-render", "-n", "600"])
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["enjoy", "record_video"])
def test_the_latest_run_is_the_latest_with_a_model(command: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="`target_kl` must be"):
        main(["train", *SHORT, "-params", "target_kl:-1"])
    assert trained.with_name("CartPole-v1_2").exists()

    def stop(cls: type[TRPO], /, path: str, **_: Any) -> None:
        raise SystemExit(Path(path).parent.name)

    monkeypatch.setattr(TRPO, "load", classmethod(stop))
    with pytest.raises(SystemExit, match="CartPole-v1_1"):
        main([command, "--env", "CartPole-v1", "--no-render"])


@pytest.fixture
def frameskips(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Frames per action of every Atari game that is made."""
    make, seen = AtariEnv.__init__, []

    def recording(self: AtariEnv, *args: Any, **kwargs: Any) -> None:
        seen.append(kwargs["frameskip"])
        make(self, *args, **kwargs)

    monkeypatch.setattr(AtariEnv, "__init__", recording)
    return seen


SHORT_GAME = ["--device", "cpu", "--num-threads", "1", "--verbose", "0"]
FEW_STEPS = ["-n", "16", "-params", "n_envs:1", "n_steps:16", "batch_size:16", "cg_max_steps:1", "n_critic_updates:1"]


def test_a_game_is_evaluated_as_it_is_trained(folder: Path, frameskips: list[Any]) -> None:
    entry = {name: value for name, value in ENTRIES["atari"].items() if name != "env_kwargs"}
    (folder / "own.yml").write_text(yaml.safe_dump({"atari": entry}))
    main(["train", "--env", "ALE/Pong-v5", "--conf-file", "own.yml", *SHORT_GAME, *FEW_STEPS])
    assert len(frameskips) > 1
    assert set(frameskips) == {4}


@pytest.mark.parametrize("env_id", ["PongNoFrameskip-v4", "Pong-v4", "ALE/Pong-v5"])
def test_atari(env_id: str, folder: Path, frameskips: list[Any]) -> None:
    short = ["--env", env_id, *SHORT_GAME]
    main(["train", *short, *FEW_STEPS])
    assert len(frameskips) > 1  # training and evaluation
    main(["enjoy", *short, "-f", "logs", "-n", "8", "--no-render"])
    n_before = len(frameskips)
    main(["record_video", "--env", env_id, "-n", "8", "--no-render"])
    assert len(frameskips) > n_before
    assert set(frameskips) == {1}  # AtariWrapper repeats the action
    assert (folder / "logs" / "trpo" / f"{env_id.replace('/', '-')}_1" / f"{env_id.replace('/', '-')}.zip").exists()


def test_the_users_env_kwargs_of_a_game_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(self: ExperimentManager) -> None:
        seen.append(self.read_hyperparameters()[0])
        raise SystemExit

    monkeypatch.setattr(ExperimentManager, "setup_experiment", stop)
    entry = yaml.safe_load(hyperparameters_file().read_text())["atari"]
    entry["env_kwargs"] = {"frameskip": 1, "repeat_action_probability": 0.0}
    (folder / "own.yml").write_text(yaml.safe_dump({"atari": entry}))
    for options in (
        ["--conf-file", "own.yml"],
        ["-params", "env_kwargs:dict(frameskip=1,repeat_action_probability=0.0)"],
        ["--env-kwargs", "repeat_action_probability:0.0"],
    ):
        with pytest.raises(SystemExit):
            main(["train", "--env", "ALE/Pong-v5", *options])
        assert seen.pop()["env_kwargs"] == entry["env_kwargs"]


def test_resume(trained: Path, folder: Path) -> None:
    main(["train", *SHORT, "--eval-freq", "-1", "--trained-agent", str(trained / "CartPole-v1.zip")])
    first = TRPO.load(trained / "CartPole-v1.zip")
    resumed = TRPO.load(folder / "logs" / "trpo" / "CartPole-v1_2" / "CartPole-v1.zip")
    assert resumed._n_updates == 2 * first._n_updates


def test_vine_sampling(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vine = ["--algo", "vine_trpo"]
    main(["train", *vine, *SHORT, "--eval-freq", "-1", "-params", "n_steps:64", "n_branch_states:8", "branch_length:4"])
    model = VineTRPO.load(folder / "logs" / "vine_trpo" / "CartPole-v1_1" / "CartPole-v1.zip")
    assert (model.n_branch_states, model.branch_length) == (8, 4)
    assert 0 < model.branch_steps < model.num_timesteps == model.trunk_steps + model.branch_steps
    main(["enjoy", *vine, "--env", "CartPole-v1", "--no-render", "-n", "600"])
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "cls"), [("npg", NaturalPolicyGradient), ("dual_trpo", DualTRPO)])
def test_other_step_rules_train_with_their_own_file(name: str, cls: type[TRPO], folder: Path) -> None:
    main(["train", "--algo", name, *SHORT, "--eval-freq", "-1", "-params", "n_steps:512"])
    run = folder / "logs" / name / "CartPole-v1_1"
    assert type(cls.load(run / "CartPole-v1.zip")) is cls
    saved = yaml.load((run / "CartPole-v1" / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    entry = yaml.safe_load(hyperparameters_file(name).read_text())["CartPole-v1"]
    assert dict(saved) == {**entry, "n_steps": 512}


@pytest.mark.usefixtures("trained")
def test_plots(folder: Path) -> None:
    main(["train", *SHORT, "--eval-freq", "1024", "--verbose", "0"])  # a single run has no spread
    main(["plot_train", "--env", "CartPole-v1", "-w", "1"])
    assert pyplot.gca().collections or pyplot.gca().lines
    main(["all_plots", "--env", "CartPole-v1", "-l", "TRPO", "--no-display", "-o", str(folder / "results")])
    main(["plot_from_file", "-i", str(folder / "results.pkl"), "-o", str(folder / "plot.svg")])
    assert (folder / "plot.svg").stat().st_size > 0


def test_tune_in_a_shared_storage(folder: Path) -> None:
    storage = f"sqlite:///{folder / 'study.db'}"
    options = ["--n-trials", "1", "--study-name", "cartpole", "--storage", storage, "--no-optim-plots", "--n-evaluations", "1"]
    for _ in range(2):
        main(["tune", *SHORT, *options])
    study = optuna.load_study(study_name="cartpole", storage=storage)
    assert len(study.trials) == 2
    assert "ent_coef" in study.trials[0].params
    settings = HYPERPARAMS_CONVERTER["trpo"](study.trials[0].params)
    TRPO(env="CartPole-v1", policy="MlpPolicy", device="cpu", **settings)


def test_the_zoos_script_trains_this_packages_trpo(folder: Path) -> None:
    options = ["--algo", "trpo", "--gym-packages", "sb3_trpo.zoo", "--conf-file", str(hyperparameters_file())]
    command = [sys.executable, "-W", "ignore", "-m", "rl_zoo3.train", *options, *SHORT, "--eval-freq", "-1"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    model = TRPO.load(folder / "logs" / "trpo" / "CartPole-v1_1" / "CartPole-v1.zip")
    assert model.cg_tol == 0.005  # sb3-contrib's has no such attribute


def test_record_training_records_with_this_package(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def pretend(command: list[str], *args: Any, **kwargs: Any) -> int:
        started.append(command)
        return 0

    monkeypatch.setattr(subprocess, "call", pretend)
    monkeypatch.setattr("os.system", lambda _: 0)
    monkeypatch.setattr("shutil.which", lambda _: "ffmpeg")
    main(["record_training", "--env", "CartPole-v1"])
    assert len(started) == len(list(trained.glob("*.zip")))
    assert all(command[:4] == [sys.executable, "-m", "sb3_trpo", "record_video"] for command in started)
    assert subprocess.call is pretend


def test_push_to_hub(trained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[Path] = []

    class Hub:
        def create_repo(self, **kwargs: Any) -> str:
            return "https://hub.test"

        def snapshot_download(self, repo_id: str, local_dir: Path) -> None:
            Path(local_dir).mkdir(parents=True)

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
            uploads.append(Path(folder_path))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    before = repocard.metadata_save
    main(["push_to_hub", "--env", "CartPole-v1", "-orga", "someone", "--no-render", "--load-best"])
    assert len(uploads) == 1
    card = (uploads[0] / "README.md").read_text()
    assert "mean_reward" in card
    assert "**TRPO** Agent playing **CartPole-v1**" in card
    assert "pip install 'sb3-trpo[zoo]'" in card
    assert "sb3-trpo load_from_hub --algo trpo --env CartPole-v1 -orga someone -f logs/" in card
    assert "summed over the action dimensions" in card
    assert "('target_kl', " in card
    assert "rl_zoo3" not in card
    assert repocard.metadata_save is before


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_command_has_the_options_of_the_zoo(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "options:" in capsys.readouterr().out


def test_the_command_takes_every_registered_algorithm() -> None:
    assert set(_ALGORITHMS) == set(ALGORITHMS)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    text = capsys.readouterr().out
    assert all(command in text for command in (*SCRIPTS, *OWN))


def test_games_of_v5_repeat_an_action_for_four_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("runpy.run_module", lambda *_, **__: seen.append(sys.argv))
    parser = argparse.ArgumentParser()
    for name in ("--env-kwargs", "--eval-env-kwargs", "-params"):
        parser.add_argument(name, nargs="+", action=StoreDict)
    parser.add_argument("--env")
    params = ["-params", "policy_kwargs:dict(net_arch=[])"]
    for options, env_kwargs, eval_env_kwargs in (
        ([], None, None),  # the entry has it
        (["--env-kwargs", "mode:0", "difficulty:1"], {"frameskip": 1, "mode": 0, "difficulty": 1}, None),
        (["--env-kwargs=mode:0"], {"frameskip": 1, "mode": 0}, None),
        (["--env-kw", "mode:0", "--eval-env", "mode:1"], {"frameskip": 1, "mode": 0}, {"frameskip": 1, "mode": 1}),
        (["--env-kwargs", "frameskip:2", "--eval-env-kwargs", "mode:0"], {"frameskip": 2}, {"frameskip": 1, "mode": 0}),
    ):
        main(["train", "--env=ALE/Pong-v5", *options, *params])
        seen_by_the_zoo = parser.parse_known_args(seen[-1][1:])[0]
        assert seen_by_the_zoo.env_kwargs == env_kwargs
        assert seen_by_the_zoo.eval_env_kwargs == eval_env_kwargs
        assert seen_by_the_zoo.params == {"policy_kwargs": {"net_arch": []}}
    for own in (["--env", "PongNoFrameskip-v4"], ["--env", "ALE/Pong-v5", "--conf-file", "own.yml"]):
        main(["train", *own, "--env-kwargs", "mode:0"])
        assert "frameskip:1" not in seen[-1]


@pytest.mark.parametrize(
    ("command", "folder_name", "organisation"),
    [("load_from_hub", "fetched", "someone"), ("enjoy", "rl-trained-agents", "sb3")],
)
def test_a_model_of_the_hub_without_vec_normalize(
    command: str, folder_name: str, organisation: str, folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repo_id: str, filename: str, **_: Any) -> str:
        assert repo_id == f"{organisation}/trpo-CartPole-v1"
        if filename == "vec_normalize.pkl":
            raise EntryNotFoundError("404")
        return str(next(trained.rglob(filename.removeprefix("trpo-")), folder / "empty"))

    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    # as in a separate process, where no other command has patched it
    package, module = import_module("huggingface_sb3"), import_module("huggingface_sb3.load_from_hub")
    monkeypatch.setitem(vars(package), "load_from_hub", module.load_from_hub)
    monkeypatch.delitem(sys.modules, "rl_zoo3.load_from_hub", raising=False)
    with zipfile.ZipFile(folder / "empty", "w"):
        pass
    own = ["-orga", organisation] if command == "load_from_hub" else ["--no-render", "-n", "50"]
    main([command, "--env", "CartPole-v1", "-f", folder_name, *own])
    assert (folder / folder_name / "trpo" / "CartPole-v1_1" / "CartPole-v1.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--env", "CartPol-v1"], "CartPol-v1 not found in gym registry, you maybe meant CartPole"),
        (["enjoy", "--env", "Hopper-v5", "--no-render", "-f", "none"], "The none/trpo folder was not found"),
        (["enjoy", "--env", "Hopper-v5", "--no-render"], "No model found for trpo on Hopper-v5, path: "),
        (["record_video", "--env", "Hopper-v5"], "No model found for trpo on Hopper-v5, path: "),
        (["train", *SHORT, "-params", "foo:3"], "TRPO has no argument 'foo'"),
    ],
)
def test_mistakes_end_with_a_line(arguments: list[str], message: str, folder: Path) -> None:
    (folder / "logs" / "trpo").mkdir(parents=True)
    with pytest.raises(SystemExit, match=f"^sb3-trpo: {message}"):
        main(arguments)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(SystemExit, match="unknown command 'trian'"):
        main(["trian"])
    for options in (["--algo", "ppo"], ["--algo=ppo"], ["--alg", "ppo"], ["--a=ppo"]):
        with pytest.raises(SystemExit, match=r"`--algo` must be trpo, .*, trpo_lstm or maskable_trpo_lstm, not 'ppo'"):
            main(["train", *options])


def test_a_plot_in_a_separate_process_gives_no_warning(folder: Path) -> None:
    command = [sys.executable, "-m", "sb3_trpo", "all_plots", "--env", "CartPole-v1", "--no-display"]
    run = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
    assert "RuntimeWarning" not in run.stderr


def test_record_training_needs_ffmpeg(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trained / "videos").mkdir()
    (trained / "videos" / "earlier.mp4").touch()
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SystemExit, match="ffmpeg"):
        main(["record_training", "--env", "CartPole-v1"])
    assert (trained / "videos" / "earlier.mp4").exists()


def test_without_the_zoo_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sb3_trpo.zoo", "sb3_trpo.zoo.search_space"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit, match=r"pip install 'sb3-trpo\[zoo\]'"):
        main(["train", "--env", "CartPole-v1"])
