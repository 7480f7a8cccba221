"""A run that was interrupted anywhere and resumed ends as one that was not interrupted, bit for bit."""

import csv
import os
import signal
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, EvalCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_trpo import (
    TRPO,
    MaskableRecurrentTRPO,
    MaskableTRPO,
    MaskedVecEnv,
    RecurrentTRPO,
    ResumableEnv,
    ResumeCallback,
    VineTRPO,
)
from sb3_trpo.saving.checkpoint_folder import checkpoints_in, steps_of
from sb3_trpo.saving.run_pickles import read_state, write_state
from tests.toy_envs import RandomEnv

N_STEPS = 16
N_ROLLOUTS = 6


class Interrupted(Exception):  # noqa: N818 (it stands for a kill)
    pass


class InterruptAt(BaseCallback):
    """Raises at a step, which is no plain data, so that a resumed run does not stop there again."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.reached: Callable[[], bool] = lambda: self.num_timesteps >= step

    def _on_step(self) -> bool:
        if self.reached():
            raise Interrupted
        return True


def normalized_cheetah() -> VecEnv:
    return VecNormalize(make_vec_env("HalfCheetah-v5", 1, seed=3))


def pong() -> VecEnv:
    return VecFrameStack(make_atari_env("PongNoFrameskip-v4", 1, seed=3), 4)


def masker() -> VecEnv:
    return make_vec_env(lambda: ActionMasker(gym.make("CartPole-v1"), lambda env: np.ones(2, dtype=bool)), 2, seed=3)


SMALL_MEMORY: dict[str, Any] = {"policy_kwargs": {"lstm_hidden_size": 8}}
CASES: dict[str, tuple[type[TRPO], str, Callable[[], VecEnv], dict[str, Any]]] = {
    "cartpole": (TRPO, "MlpPolicy", lambda: make_vec_env("CartPole-v1", 2, seed=3), {}),
    "gsde": (TRPO, "MlpPolicy", lambda: make_vec_env("Pendulum-v1", 2, seed=3), {"use_sde": True, "sde_sample_freq": 4}),
    "normalized": (TRPO, "MlpPolicy", normalized_cheetah, {}),
    "game": (TRPO, "CnnPolicy", pong, {"n_critic_updates": 1}),
    "memory": (RecurrentTRPO, "MlpLstmPolicy", lambda: make_vec_env("CartPole-v1", 2, seed=3), SMALL_MEMORY),
    "masks": (MaskableTRPO, "MlpPolicy", lambda: make_vec_env("Taxi-v4", 2, seed=3), {}),
    "both": (MaskableRecurrentTRPO, "MlpLstmPolicy", lambda: make_vec_env("Taxi-v4", 2, seed=3), SMALL_MEMORY),
    "masker": (MaskableTRPO, "MlpPolicy", masker, {}),
    "masked": (MaskableTRPO, "MlpPolicy", lambda: MaskedVecEnv(make_vec_env("Taxi-v4", 2, seed=3)), {}),
    "vine": (VineTRPO, "MlpPolicy", lambda: make_vec_env("CartPole-v1", 1, seed=3), {"branch_length": 2}),
}


def learn(case: str, folder: Path, log: Path, until: float = float("inf"), resume: bool = False) -> TRPO:
    cls, policy, make_env, settings = CASES[case]
    env = make_env()
    settings = {"n_steps": N_STEPS, "batch_size": N_STEPS, "seed": 0, "device": "cpu", **settings}
    model = cls.resume(folder, env, device="cpu") if resume else cls(policy, env, **settings)
    model.set_logger(configure(str(log), ["csv"]))
    callbacks: list[BaseCallback] = [ResumeCallback(folder, every=2), InterruptAt(until)]
    if case == "cartpole":
        callbacks.append(EvalCallback(make_env(), eval_freq=10, n_eval_episodes=1, verbose=0))
    try:
        model.learn(N_STEPS * env.num_envs * N_ROLLOUTS, callbacks, log_interval=2)
    except Interrupted:
        assert until < float("inf")
    model.logger.close()
    env.close()
    return model


def rows(log: Path) -> list[dict[str, str]]:
    """Read the log without what the clock tells."""
    clock = ("time/fps", "time/time_elapsed", "seconds")
    with (log / "progress.csv").open() as file:
        return [{key: value for key, value in row.items() if not key.endswith(clock)} for row in csv.DictReader(file)]


def same_weights(first: TRPO, second: TRPO) -> bool:
    return all(map(th.equal, first.policy.state_dict().values(), second.policy.state_dict().values()))


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(case: str, tmp_path: Path) -> None:
    whole = learn(case, tmp_path / "whole", tmp_path / "whole_log")
    interrupted_at = 4.5 * N_STEPS * whole.n_envs
    learn(case, tmp_path / "run", tmp_path / "log", until=interrupted_at)
    resumed = learn(case, tmp_path / "run", tmp_path / "log", resume=True)
    assert whole.num_timesteps == resumed.num_timesteps > interrupted_at
    assert same_weights(whole, resumed)
    assert rows(tmp_path / "log") == rows(tmp_path / "whole_log")
    assert [row["time/iterations"] for row in rows(tmp_path / "log") if row["time/iterations"]][:2] == ["2", "4"]
    assert len(checkpoints_in(tmp_path / "run")) == 2


def killed(where: str, folder: Path) -> int:
    """Learn in a process that SIGKILL ends, and return its exit status."""
    code = f"from tests.saving.test_resume import be_killed; be_killed({where!r}, {str(folder)!r})"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode


def be_killed(where: str, folder: str) -> None:
    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class KillAt(InterruptAt):
        def _on_step(self) -> bool:
            if self.reached():
                if where == "rollout":
                    kill()
                setattr(os, where, kill)  # of the next save
            return True

    th.set_num_threads(1)  # as in the tests
    KillAt.__module__, KillAt.__qualname__ = InterruptAt.__module__, InterruptAt.__qualname__
    model = TRPO("MlpPolicy", CASES["cartpole"][2](), n_steps=N_STEPS, batch_size=N_STEPS, seed=0, device="cpu")
    model.learn(N_STEPS * 2 * N_ROLLOUTS, [ResumeCallback(folder, every=1), KillAt(4 * 2 * N_STEPS + 6)])


@pytest.mark.parametrize("where", ["rollout", "fsync", "replace"])
def test_a_run_goes_on_after_a_kill_also_inside_a_save(where: str, tmp_path: Path) -> None:
    assert killed(where, tmp_path / "run") == -signal.SIGKILL
    env = CASES["cartpole"][2]()
    resumed = TRPO.resume(tmp_path / "run", env, device="cpu")
    assert resumed.num_timesteps == 4 * 2 * N_STEPS
    assert len(list((tmp_path / "run").glob(".*.tmp"))) == (where != "rollout")
    resumed.learn(N_STEPS * 2 * N_ROLLOUTS, [ResumeCallback(tmp_path / "run", every=1), InterruptAt(float("inf"))])
    whole = TRPO("MlpPolicy", CASES["cartpole"][2](), n_steps=N_STEPS, batch_size=N_STEPS, seed=0, device="cpu")
    assert same_weights(whole.learn(N_STEPS * 2 * N_ROLLOUTS), resumed)
    assert not list((tmp_path / "run").glob(".*.tmp"))


def toy(n_envs: int = 1, env: Callable[[], gym.Env[Any, Any]] = lambda: gym.make("Pendulum-v1")) -> DummyVecEnv:
    return DummyVecEnv([env] * n_envs)


def saved_run(folder: Path, env: Any = None, cls: type[TRPO] = TRPO, **kwargs: Any) -> None:
    settings: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": N_STEPS, "device": "cpu", **kwargs}
    model = cls("MlpPolicy", env or toy(), **settings)
    model.learn(3 * N_STEPS * model.n_envs, ResumeCallback(folder, every=1))


def test_sigterm_saves_before_the_next_rollout_and_ends(tmp_path: Path) -> None:
    class Terminate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == N_STEPS + 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return True

    model = TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            model.learn(10 * N_STEPS, [ResumeCallback(tmp_path, every=100), Terminate()])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert TRPO.resume(tmp_path, toy()).num_timesteps == 2 * N_STEPS


def resumable_pendulum() -> gym.Env[Any, Any]:
    return ResumableEnv(gym.make("Pendulum-v1"))


def test_environments_in_processes_go_on(tmp_path: Path) -> None:
    def learn_there(folder: str, until: float, resume: bool = False) -> TRPO:
        env = SubprocVecEnv([resumable_pendulum] * 2)
        settings: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": N_STEPS, "seed": 0, "device": "cpu"}
        model = TRPO.resume(tmp_path / folder, env) if resume else TRPO("MlpPolicy", env, **settings)
        try:
            model.learn(4 * 2 * N_STEPS, [ResumeCallback(tmp_path / folder, every=1), InterruptAt(until)])
        except Interrupted:
            assert not resume
        env.close()
        return model

    whole = learn_there("whole", float("inf"))
    learn_there("run", 2.5 * 2 * N_STEPS)
    assert same_weights(whole, learn_there("run", float("inf"), resume=True))


def test_environments_that_cannot_be_saved_are_reset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_run(tmp_path, toy(env=RandomEnv), verbose=1)
    assert "A resumed run will reset its environments: the state of tests.toy_envs.RandomEnv" in capsys.readouterr().out
    model = TRPO.resume(tmp_path, toy(env=RandomEnv))
    with pytest.warns(UserWarning, match="environments of this run cannot be saved, so they were reset"):
        model.learn(4 * N_STEPS, ResumeCallback(tmp_path))
    assert model.num_timesteps == 4 * N_STEPS


def test_the_newest_whole_checkpoint_is_used(tmp_path: Path) -> None:
    saved_run(tmp_path)
    newest, earlier = checkpoints_in(tmp_path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{newest.name} cannot be read .*; an earlier one is used"):
        assert TRPO.resume(tmp_path, toy()).num_timesteps == N_STEPS
    earlier.unlink()
    newest.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(FileNotFoundError, match="`folder` must hold a checkpoint"),
    ):
        TRPO.resume(tmp_path, toy())


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_runs_unless_it_is_trusted(tmp_path: Path) -> None:
    saved_run(tmp_path)
    path, canary = checkpoints_in(tmp_path)[0], tmp_path / "canary"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    state = {**read_state(parts["state.pkl"]), "callbacks": Touch(canary)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "state.pkl": write_state(state)}.items():
            archive.writestr(name, content)
    with pytest.warns(UserWarning, match=r"cannot be read \(it holds a pathlib[\w.]*, which is no plain data.*`trusted=True`"):
        TRPO.resume(tmp_path, toy())
    assert not canary.exists()
    TRPO.resume(tmp_path, toy(), trusted=True)
    assert canary.exists()


def test_a_checkpoint_is_no_bomb(tmp_path: Path) -> None:
    saved_run(tmp_path)
    path = checkpoints_in(tmp_path)[0]
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**parts, "state.pkl": b"\0" * 80_000_000}.items():
            archive.writestr(name, content)
    with pytest.warns(UserWarning, match=r"cannot be read \(its entries up to 'state.pkl' would take 80,"):
        assert TRPO.resume(tmp_path, toy()).num_timesteps == N_STEPS


def test_custom_objects_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    saved_run(tmp_path)
    model = TRPO.resume(tmp_path, toy(), custom_objects={"gamma": 0.5, "target_kl": "lin_0.03"})
    model.learn(4 * N_STEPS, ResumeCallback(tmp_path))
    assert (model.gamma, model.target_kl) == (0.5, "lin_0.03")


def test_the_checkpoint_just_written_stays_whatever_else_there_is(tmp_path: Path) -> None:
    saved_run(tmp_path)
    checkpoints_in(tmp_path)[0].rename(tmp_path / f"checkpoint_{10**6:012d}.zip")
    (tmp_path / f"checkpoint_{10**6:012d}.zip").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="cannot be read"):
        model = TRPO.resume(tmp_path, toy())
    model.learn(4 * N_STEPS, ResumeCallback(tmp_path, every=1, keep=1))
    assert [steps_of(path) for path in checkpoints_in(tmp_path)] == [10**6, 3 * N_STEPS]


def test_one_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    saved_run(tmp_path)
    first, second = TRPO.resume(tmp_path, toy()), TRPO.resume(tmp_path, toy())

    def disturb(*_: Any) -> bool:
        with pytest.raises(ValueError, match=r"`folder` = .* is in use: another run saves its checkpoints there now"):
            second.learn(9 * N_STEPS, ResumeCallback(tmp_path))
        return True

    first.learn(3 * N_STEPS, CallbackList([ResumeCallback(tmp_path), ConvertCallback(disturb)]))
    assert second.learn(4 * N_STEPS, ResumeCallback(tmp_path)).num_timesteps == 4 * N_STEPS


def test_sigterm_that_ends_workers_too_gives_the_same_exit_code(tmp_path: Path) -> None:
    class Terminate(BaseCallback):
        def _on_step(self) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("worker 0 ended")

    model = TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS)
    with (
        pytest.warns(UserWarning, match="ended after SIGTERM without another checkpoint: worker 0 ended"),
        pytest.raises(SystemExit) as ended,
    ):
        model.learn(N_STEPS, [ResumeCallback(tmp_path), Terminate()])
    assert ended.value.code == 143


def test_other_runs_are_refused(tmp_path: Path) -> None:
    saved_run(tmp_path)
    with pytest.raises(ValueError, match="`env` must have 1 environments, as the run in `folder` has, not 2"):
        TRPO.resume(tmp_path, toy(2))
    with pytest.raises(ValueError, match=r"is one of sb3_trpo\..*\.TRPO, not of sb3_trpo\..*\.VineTRPO: call its `resume`"):
        VineTRPO.resume(tmp_path, toy())
    with pytest.raises(
        ValueError, match=r"is one of sb3_trpo\..*\.TRPO, not of sb3_trpo\..*\.RecurrentTRPO: call its `resume`"
    ):
        RecurrentTRPO.resume(tmp_path, toy())
    with pytest.raises(ValueError, match=r"`folder` = .* holds the checkpoints of a run: continue it with `resume`"):
        saved_run(tmp_path)


def test_other_versions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_run(tmp_path)
    monkeypatch.setattr(np, "__version__", "99.0")
    with pytest.warns(UserWarning, match=r"not bit for bit, because these have changed: numpy [\d.]+ → 99.0$"):
        TRPO.resume(tmp_path, toy())


def test_other_callbacks_begin_anew(tmp_path: Path) -> None:
    saved_run(tmp_path)
    model = TRPO.resume(tmp_path, toy())
    with pytest.warns(UserWarning, match=r"`callback` must be that of the saved run \(none\); these callbacks begin anew"):
        model.learn(4 * N_STEPS, [ResumeCallback(tmp_path), InterruptAt(float("inf"))])


def test_a_second_learn_counts_from_where_it_began(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS).learn(2 * N_STEPS)
    callbacks = [ResumeCallback(tmp_path, every=1), InterruptAt(4.5 * N_STEPS)]
    with pytest.raises(Interrupted):
        model.learn(3 * N_STEPS, callbacks, reset_num_timesteps=False)
    resumed = TRPO.resume(tmp_path, toy())
    resumed.learn(3 * N_STEPS, [ResumeCallback(tmp_path, every=1), InterruptAt(float("inf"))], reset_num_timesteps=False)
    assert resumed.num_timesteps == 5 * N_STEPS
    assert not resumed.is_continued


@pytest.mark.parametrize("name", ["every", "keep"])
def test_bad_arguments_are_named(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=rf"`{name}` must be an integer >= 1, not 0"):
        ResumeCallback("folder", **arguments)


class Kind(Enum):
    ONE = 1


class Holder(InterruptAt):
    """Holds values of many types, which the program sets to None when it goes on."""

    def __init__(self, step: float, **values: Any) -> None:
        super().__init__(step)
        vars(self).update(values)


def test_callbacks_and_models_may_hold_values_of_any_type(tmp_path: Path) -> None:
    kept: dict[str, Any] = {
        "tensor": th.arange(3.0),
        "tensors": deque([th.ones(2)], maxlen=3),
        "lists": defaultdict(list, {"a": [1]}),
        "ordered": OrderedDict(b=1),
    }
    lost: dict[str, Any] = {"kind": Kind.ONE, "zeros": defaultdict(lambda: 0), "path": tmp_path}
    model = TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS)
    vars(model).update({f"my_{name}": value for name, value in kept.items()})
    with pytest.raises(Interrupted):
        model.learn(3 * N_STEPS, [ResumeCallback(tmp_path, every=1), Holder(1.5 * N_STEPS, **kept, **lost)])
    resumed, holder = TRPO.resume(tmp_path, toy()), Holder(float("inf"), **dict.fromkeys([*kept, *lost]))
    resumed.learn(2 * N_STEPS, [ResumeCallback(tmp_path), holder])
    assert [getattr(holder, name) for name in lost] == [None] * 3
    for found in ({name: getattr(holder, name) for name in kept}, {name: getattr(resumed, f"my_{name}") for name in kept}):
        assert found["tensor"].equal(kept["tensor"])
        assert found["tensors"].maxlen == 3
        assert found["tensors"][0].equal(th.ones(2))
        assert found["lists"]["new"] == []
        assert type(found["ordered"]) is OrderedDict


def test_one_callback_saves_several_learns_and_refuses_to_count_backwards(tmp_path: Path) -> None:
    model = TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS)
    callback = ResumeCallback(tmp_path, every=1)
    model.learn(2 * N_STEPS, callback)
    model.target_kl = lambda _: 0.02
    model.learn(2 * N_STEPS, callback, reset_num_timesteps=False)
    resumed = TRPO.resume(tmp_path, toy(), custom_objects={"target_kl": lambda _: 0.04})
    assert resumed.num_timesteps == 3 * N_STEPS
    assert callable(resumed.target_kl)
    resumed.learn(2 * N_STEPS, ResumeCallback(tmp_path, every=1), reset_num_timesteps=False)
    resumed.learn(N_STEPS, ResumeCallback(tmp_path, every=1), reset_num_timesteps=False)
    assert resumed.num_timesteps == 5 * N_STEPS
    for trained in (model, resumed):  # its checkpoints would be taken for older ones
        with pytest.raises(ValueError, match=r"`folder` = .* holds the checkpoints of a run"):
            trained.learn(N_STEPS, ResumeCallback(tmp_path))


def test_attributes_set_after_resume_count(tmp_path: Path) -> None:
    saved_run(tmp_path)
    model = TRPO.resume(tmp_path, toy())
    model.target_kl, model.cg_damping = lambda _: 0.02, 0.5
    model.learn(4 * N_STEPS, ResumeCallback(tmp_path))
    assert callable(model.target_kl)
    assert model.cg_damping == 0.5
    assert model.num_timesteps == 4 * N_STEPS


def test_sigterm_is_the_programs_again_after_an_error(tmp_path: Path) -> None:
    model, before = TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS), signal.getsignal(signal.SIGTERM)
    callbacks = [ResumeCallback(tmp_path / "a"), ResumeCallback(tmp_path / "b"), InterruptAt(1)]
    with pytest.raises(Interrupted):
        model.learn(N_STEPS, callbacks)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_in_the_last_rollout_ends_the_program_too(tmp_path: Path) -> None:
    class Terminate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == N_STEPS:
                os.kill(os.getpid(), signal.SIGTERM)
            return True

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS).learn(N_STEPS, [ResumeCallback(tmp_path), Terminate()])
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_files_and_models_without_resume_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"`folder` must be a folder or a path where there is nothing, and .*file is a file"):
        saved_run(tmp_path / "file")
    with pytest.raises(TypeError, match="ResumeCallback saves runs of TRPO and its variants, not of PPO"):
        PPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS).learn(N_STEPS, ResumeCallback(tmp_path))


@pytest.mark.parametrize("later", ["none", "list", "function", "bar"])
@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_wrappers_of_callbacks_are_not_part_of_the_run(later: str, tmp_path: Path) -> None:
    saved_run(tmp_path)
    callbacks: dict[str, Any] = {
        "none": None,
        "list": [ResumeCallback(tmp_path)],
        "function": lambda local, glob: True,
        "bar": ResumeCallback(tmp_path),
    }
    model = TRPO.resume(tmp_path, toy())
    assert model.learn(4 * N_STEPS, callbacks[later], progress_bar=later == "bar").num_timesteps == 4 * N_STEPS


def test_a_run_may_be_saved_in_two_folders(tmp_path: Path) -> None:
    def callbacks() -> list[BaseCallback]:
        return [ResumeCallback(tmp_path / "often", every=1), ResumeCallback(tmp_path / "rarely", every=2)]

    saved_run(tmp_path / "other")
    TRPO("MlpPolicy", toy(), n_steps=N_STEPS, batch_size=N_STEPS).learn(3 * N_STEPS, callbacks())
    for folder in ("often", "rarely"):
        model = TRPO.resume(tmp_path / folder, toy())
        assert model.learn(4 * N_STEPS, callbacks()).num_timesteps == 4 * N_STEPS
        with pytest.raises(ValueError, match=r"`folder` = .*other holds the checkpoints of a run"):
            TRPO.resume(tmp_path / folder, toy()).learn(4 * N_STEPS, ResumeCallback(tmp_path / "other"))
