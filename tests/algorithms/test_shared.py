"""Processes that share a run make the update of one, and end together."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import sb3_trpo
from sb3_trpo import TRPO, MaskableRecurrentTRPO, MaskableTRPO, ResumeCallback, VineTRPO
from sb3_trpo.algorithms.shared import without_callbacks_of_the_first
from sb3_trpo.policies.image_normalization import ImageNormalization
from sb3_trpo.processes.launch import join
from sb3_trpo.step.flat import flatten
from tests.helpers import OwnBuffer
from tests.ranks import EndedError, run_ranks
from tests.toy_envs import RandomEnv

N_STEPS = 32
COMMON: dict[str, Any] = {
    "n_steps": N_STEPS,
    "batch_size": 40,
    "n_critic_updates": 2,
    "seed": 3,
    "target_kl": 0.03,
    "cg_damping": 1.0,
}
pytestmark = pytest.mark.filterwarnings("ignore:`batch_size`:UserWarning")


class Images(RandomEnv):
    """Random images, whose statistics on one rank are not those of all ranks together."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(0, 255, (1, 36, 36), np.uint8))


ENVS: dict[str, Any] = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1", "cheetah": "HalfCheetah-v5"}
LSTM: dict[str, Any] = {"policy_kwargs": {"lstm_hidden_size": 8}}
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "plain": ("TRPO", "MlpPolicy", "cartpole", {}),
    "normalised": ("TRPO", "MlpPolicy", "cheetah", {"freeze_normalization": True}),
    "subsets": ("TRPO", "MlpPolicy", "cartpole", {"sub_sampling_factor": 3, "fisher_sample_fraction": 0.3}),
    "by autograd": ("TRPO", "MlpPolicy", "cartpole", {"policy_kwargs": {"activation_fn": th.nn.SiLU}}),
    "gSDE": ("TRPO", "MlpPolicy", "pendulum", {"use_sde": True, "sde_sample_freq": 8}),
    "memory": ("RecurrentTRPO", "MlpLstmPolicy", "cartpole", {**LSTM, "fisher_sample_fraction": 0.5}),
    "penalty": ("KLPenaltyTRPO", "MlpPolicy", "cartpole", {"n_policy_updates": 2}),
    "clipped gradient": ("TRPO", "MlpPolicy", "cartpole", {"max_grad_norm": 0.1}),
    "branches": ("VineTRPO", "MlpPolicy", "cartpole", {"n_branch_states": 10, "branch_length": 8, "n_branch_rollouts": 2}),
}
"""Class, policy, environment and arguments; equal to one process up to rounding."""


def build(case: str, n_envs: int, **kwargs: Any) -> TRPO:
    cls, policy, env, arguments = CASES[case]
    vec_env: VecEnv = make_vec_env(ENVS[env], n_envs)
    if case == "normalised":
        vec_env = VecNormalize(vec_env)
    model: TRPO = getattr(sb3_trpo, cls)(policy, vec_env, **{**COMMON, **arguments, **kwargs})
    return model


def result_of(model: TRPO) -> dict[str, Any]:
    statistics: Any = model.get_vec_normalize_env()
    return {
        "parameters": flatten(list(model.policy.parameters())).numpy(),
        "num_timesteps": model.num_timesteps,
        "step": model.last_step,
        "episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer or ()],
        "log": dict(model.logger.name_to_value),
        "statistics": []
        if statistics is None
        else [statistics.obs_rms.mean, statistics.ret_rms.var, statistics.obs_rms.count],
    }


def train_cases(rank: int, cases: list[str], n_envs: tuple[int, ...], n_updates: int = 1) -> list[dict[str, Any]]:
    total = n_updates * N_STEPS * sum(n_envs)
    return [result_of(build(case, n_envs[rank], distributed=True).learn(total)) for case in cases]


@pytest.mark.parametrize("n_envs", [(4, 4), (2, 1, 4)])
def test_several_processes_make_the_update_of_one(n_envs: tuple[int, ...]) -> None:
    cases = list(CASES) if len(n_envs) == 2 else ["plain", "normalised", "memory", "subsets"]
    results = run_ranks(len(n_envs), train_cases, cases, n_envs)
    assert not [result for result in results if isinstance(result, BaseException)]
    for i, case in enumerate(cases):
        one = result_of(build(case, sum(n_envs)).learn(N_STEPS * sum(n_envs)))
        for rank in range(len(n_envs)):
            ours = results[rank][i]
            np.testing.assert_array_equal(ours["parameters"], results[0][i]["parameters"], err_msg=case)
            np.testing.assert_allclose(ours["parameters"], one["parameters"], rtol=1e-5, atol=1e-6, err_msg=case)
            assert ours["num_timesteps"] == one["num_timesteps"], case
            assert ours["step"].outcome is one["step"].outcome, case
            np.testing.assert_allclose(np.array(ours["episodes"]), np.array(one["episodes"]), rtol=1e-5, err_msg=case)
            for mine, theirs in zip(ours["statistics"], one["statistics"], strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6, err_msg=case)
            for key in ("train/explained_variance", "train/value_loss", "train/kl_divergence_loss", "train/entropy"):
                assert ours["log"][key] == pytest.approx(one["log"][key], rel=1e-3, abs=1e-5), (case, key)
            assert ours["log"]["time/reduce_seconds"] > 0.0


class Masked(RandomEnv):
    """Forbids one action, another one at each step."""

    def __init__(self) -> None:
        super().__init__(action_space=spaces.Discrete(3))
        self.taken = 0

    def action_masks(self) -> np.ndarray:
        masks: np.ndarray = np.arange(3) != self.taken % 3
        return masks

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_masks()[int(action)]
        self.taken += 1
        return super().step(action)


def train_others(rank: int) -> list[Any]:
    """Variants that act with streams of their own: all ranks must agree, and statistics are those of all of them."""
    n_envs, kwargs = 1 + rank, {**COMMON, "distributed": True, "n_critic_updates": 1}
    images = TRPO("CnnPolicy", make_vec_env(Images, n_envs), **kwargs).learn(N_STEPS * 3)
    normalization: Any = next(m for m in images.policy.modules() if isinstance(m, ImageNormalization))
    statistics = normalization.mean, normalization.var, normalization.n_seen
    seen = images.rollout_buffer.observations.astype(np.float64).reshape(-1, 1, 36, 36) / 255.0
    masked = MaskableTRPO("MlpPolicy", make_vec_env(Masked, n_envs), **kwargs).learn(N_STEPS * 6)
    both = MaskableRecurrentTRPO("MlpLstmPolicy", make_vec_env(Masked, n_envs), **kwargs, **LSTM).learn(N_STEPS * 6)
    custom = TRPO("MlpPolicy", make_vec_env(RandomEnv, n_envs), rollout_buffer_class=OwnBuffer, **kwargs).learn(N_STEPS * 6)
    return [[part.numpy() for part in statistics], seen, *(result_of(m) for m in (images, masked, both, custom))]


def test_other_variants_have_equal_weights_and_pooled_statistics() -> None:
    results = run_ranks(2, train_others)
    assert not [result for result in results if isinstance(result, BaseException)]
    for ours, theirs in zip(results[0][2:], results[1][2:], strict=True):
        np.testing.assert_array_equal(ours["parameters"], theirs["parameters"])
        assert ours["num_timesteps"] == theirs["num_timesteps"]
    images = np.concatenate([result[1] for result in results])
    assert len(images) == 3 * N_STEPS
    for result in results:
        mean, var, n_seen = result[0]
        assert n_seen == len(images)
        np.testing.assert_allclose(mean, images.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(var, np.square(images - images.mean(axis=0)).mean(), rtol=1e-4)


# --- all of them end ---


class At(BaseCallback):
    """Does something on one rank at one step, or at the end of a rollout."""

    def __init__(self, act: Callable[["At"], bool], rank: int, step: int = 5, at_end: bool = False) -> None:
        super().__init__()
        self.act, self.rank, self.step, self.at_end = act, rank, step, at_end

    def _here(self) -> bool:
        model: Any = self.model
        return bool(model.workers.rank == self.rank)

    def _on_step(self) -> bool:
        return self.act(self) if self._here() and not self.at_end and self.n_calls == self.step else True

    def _on_rollout_end(self) -> None:
        if self._here() and self.at_end:
            self.act(self)


def interrupt(callback: At) -> bool:
    raise KeyboardInterrupt


def fail(callback: At) -> bool:
    raise LookupError("no such thing")


def stop(callback: At) -> bool:
    return False


def kill(callback: At) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def change(callback: At) -> bool:
    model: Any = callback.model
    with th.no_grad():
        model.policy.value_net.bias.add_(1e-6)
    return True


def inflate(callback: At) -> bool:
    model: Any = callback.model
    model.rollout_buffer.returns[3, 0] = 1e30
    return True


class SlowEnv(RandomEnv):
    """A rollout of it takes longer than anyone should wait for."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.01)
        return super().step(action)


class NanEnv(SlowEnv):
    """Its rewards become NaN."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan"), terminated, truncated, info


LONG = 3_000
"""Steps of a rollout that takes 30 seconds."""


def run_failing(rank: int, callback: At | None, n_steps: int, env: Any = None) -> tuple[str, str, float, int]:
    env_class = env if env is not None and rank == 1 else SlowEnv
    model = TRPO("MlpPolicy", make_vec_env(env_class, 1), **{**COMMON, "n_steps": n_steps}, distributed=True)
    started, outcome = time.monotonic(), ("", "")
    try:
        model.learn(100 * n_steps, callback=callback)
    except BaseException as error:
        outcome = type(error).__name__, str(error)
    return *outcome, time.monotonic() - started, model.num_timesteps


@pytest.mark.parametrize(
    ("callback", "n_steps", "env", "own", "others"),
    [
        (At(interrupt, 1), LONG, None, "KeyboardInterrupt: ", "KeyboardInterrupt: rank 1 was interrupted"),
        (At(fail, 0), LONG, None, "LookupError: no such", "RuntimeError: rank 0 has ended the run: LookupError: no such"),
        (At(fail, 1, at_end=True), 8, None, "LookupError: ", "RuntimeError: rank 1 has ended the run: LookupError: "),
        (At(kill, 1), LONG, None, "", "RuntimeError: rank 1 has ended without a message, so it was probably killed"),
        (At(kill, 0, at_end=True), 8, None, "", "RuntimeError: "),
        (
            None,
            LONG,
            NanEnv,
            "ValueError: The reward of environment 0",
            "RuntimeError: rank 1 has ended the run: ValueError: The r",
        ),
        (
            At(inflate, 1, at_end=True),
            8,
            None,
            "ValueError: The returns",
            "ValueError: rank 1 has refused its part of the rollout",
        ),
        (
            At(change, 1, at_end=True),
            8,
            None,
            "RuntimeError: the parameters of rank 1 differ",
            "RuntimeError: the parameters of",
        ),
    ],
)
def test_all_processes_end_within_seconds(callback: At | None, n_steps: int, env: Any, own: str, others: str) -> None:
    rank = 1 if callback is None else callback.rank
    results = run_ranks(2, run_failing, callback, n_steps, env)
    for other, result in enumerate(results):
        if other == rank and not own:
            assert isinstance(result, EndedError)
            assert result.args == (-signal.SIGKILL,)
            continue
        kind, message, seconds, _ = result
        assert f"{kind}: {message}".startswith(own if other == rank else others)
        assert seconds < 12.0


def test_a_callback_that_stops_one_process_stops_all() -> None:
    results = run_ranks(2, run_failing, At(stop, 1), LONG)
    assert [result[:2] for result in results] == [("", "")] * 2
    assert max(result[2] for result in results) < 12.0
    assert results[0][3] == results[1][3] >= 5 + 1


# --- different runs ---


class OtherSpace(RandomEnv):
    def __init__(self) -> None:
        super().__init__(spaces.Box(-1.0, 2.0, (3,), np.float32))


def lin(progress: float) -> float:
    return 0.01 * progress


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "target_kl": ({"target_kl": 0.02}, {"target_kl": 0.03}),
    "learning_rate": ({"learning_rate": lin}, {"learning_rate": lambda progress: 0.02 * progress}),
    "seed": ({"seed": 1}, {"seed": 2}),
    "policy": ({}, {"policy_kwargs": {"net_arch": [8]}}),
    "observation_space": ({}, {"env": OtherSpace}),
    "total_timesteps": ({}, {"total": 64}),
}


def run_different(rank: int) -> dict[str, str]:
    messages = {}
    for name, settings in DIFFERENT.items():
        kwargs = {**COMMON, **settings[rank]}
        env, total = make_vec_env(kwargs.pop("env", RandomEnv), 1), kwargs.pop("total", 32)
        model = TRPO("MlpPolicy", env, **kwargs, distributed=True)
        try:
            model._begin_shared_run(total)
        except ValueError as error:
            messages[name] = str(error)
    return messages


def test_different_runs_are_refused_at_the_start() -> None:
    results = run_ranks(2, run_different)
    assert results[0] == results[1]
    assert results[0].keys() == DIFFERENT.keys()
    for name, message in results[0].items():
        assert message.startswith(f"all processes must have the same {name}: rank 0 has ") or name == "policy"
    assert results[0]["target_kl"].endswith("rank 0 has 0.02, rank 1 has 0.03")


# --- files, evaluations and seeds ---


class Recorder(BaseCallback):
    """Notes the first observations, and where it runs."""

    def _on_training_start(self) -> None:
        self.first = np.array(self.model._last_obs)

    def _on_step(self) -> bool:
        return True


def run_with_files(rank: int, folder: str) -> dict[str, Any]:
    os.chdir(folder)
    model = TRPO("MlpPolicy", make_vec_env("CartPole-v1", 2), **COMMON, distributed=True, verbose=1)
    if rank == 0:
        model.set_logger(configure("log", ["csv"]))
    recorder = Recorder()
    evaluated = EvalCallback(make_vec_env("CartPole-v1", 1), eval_freq=N_STEPS, log_path="eval", n_eval_episodes=1, verbose=0)
    model.learn(2 * 4 * N_STEPS, callback=[recorder, evaluated, CheckpointCallback(N_STEPS, "checkpoints")])
    model.save("final" if rank == 0 else "other")
    return {"first": recorder.first, "verbose": model.verbose, "evaluations": evaluated.n_calls, **result_of(model)}


def test_files_and_evaluations_are_those_of_the_first(tmp_path: Path) -> None:
    results = run_ranks(2, run_with_files, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "eval", "final.zip", "log"]
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "rl_model_128_steps.zip",
        "rl_model_256_steps.zip",
    ]
    assert [result["evaluations"] for result in results] == [2 * N_STEPS, 0]
    assert results[0]["episodes"] == results[1]["episodes"]
    one = build("plain", 4)
    recorder = Recorder()
    one.learn(1, callback=recorder)
    np.testing.assert_array_equal(np.concatenate([result["first"] for result in results]), recorder.first)
    loaded = TRPO.load(tmp_path / "final.zip")
    np.testing.assert_array_equal(flatten(list(loaded.policy.parameters())).numpy(), results[1]["parameters"])
    assert (loaded.num_timesteps, loaded.distributed) == (256, True)
    assert [result["verbose"] for result in results] == [1, 0]


def learn_with_a_bar(rank: int, case: str) -> tuple[list[list[int]], list[float]]:
    bars: list[list[int]] = []

    def make_bar(total: int) -> Mock:
        bar = [total, 0]
        bars.append(bar)
        return Mock(update=lambda n: bar.append(bar.pop() + n))

    seen: list[float] = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return 0.01

    model = build(case, 1 + rank, distributed=True, target_kl=schedule)
    with patch("stable_baselines3.common.callbacks.tqdm", make_bar):
        model.learn(2 * 3 * N_STEPS, progress_bar=True)
    bars.append([model.num_timesteps])
    seen.clear()
    model.learn(3 * N_STEPS)  # one rollout of all of them
    return bars, seen


@pytest.mark.parametrize("case", ["plain", "branches"])
def test_progress_is_that_of_all_processes(case: str) -> None:
    first, other = run_ranks(2, learn_with_a_bar, case)
    (bar, (num_timesteps,)), progress = first
    assert bar == [2 * 3 * N_STEPS, num_timesteps]
    assert other[0] == [[num_timesteps]]
    if case == "plain":
        assert set(progress) == set(other[1]) == {1.0}  # as in one process with all environments


def train_and_load(rank: int, folder: str) -> list[float]:
    os.chdir(folder)
    kwargs = {**COMMON, "batch_size": 64, "distributed": True, "tensorboard_log": "runs"}
    TRPO("MlpPolicy", make_vec_env("CartPole-v1", 1), **kwargs, sub_sampling_factor=40).learn(64).save("plain")
    VineTRPO("MlpPolicy", make_vec_env("CartPole-v1", 1), **kwargs, n_branch_states=40).learn(64).save("vine")
    join().gather(None)  # until the files are there
    TRPO.load("plain", make_vec_env("CartPole-v1", 1)).learn(64)
    return [VineTRPO.load("vine", make_vec_env("CartPole-v1", 1)).learn(64).num_timesteps]


def test_a_loaded_model_counts_the_environments_of_all(tmp_path: Path) -> None:
    results = run_ranks(2, train_and_load, str(tmp_path))
    assert results[0] == results[1]
    assert results[0][0] > 64
    # one process writes the log, of loaded models too
    assert [path.name for path in sorted((tmp_path / "runs").iterdir())] == [f"TRPO_{i}" for i in (1, 2, 3, 4)]
    assert {len(list(path.iterdir())) for path in (tmp_path / "runs").iterdir()} == {1}
    for cls, name in ((TRPO, "plain"), (VineTRPO, "vine")):  # elsewhere, in one process
        assert cls.load(tmp_path / name).predict(np.zeros(4, dtype=np.float32))[0] in (0, 1)
    with pytest.raises(ValueError, match=r"`sub_sampling_factor` must be at most `n_steps \* n_envs` = 32 \* 1 = 32, not 40"):
        TRPO.load(tmp_path / "plain", make_vec_env("CartPole-v1", 1))


def test_callbacks_of_the_first_process_are_left_out() -> None:
    own, quiet = Recorder(), Recorder()
    quiet.first_rank_only = True  # type: ignore[attr-defined]
    evaluated = EvalCallback(gym.make("CartPole-v1"), callback_on_new_best=Recorder())
    left = without_callbacks_of_the_first([own, quiet, evaluated])
    assert left[0] is own
    assert [type(part).__name__ for part in left[1:]] == ["_Nothing", "_Nothing"]
    assert without_callbacks_of_the_first(None) is None


# --- runs that are resumed ---


def terminate(callback: At) -> bool:
    os.kill(os.getpid(), signal.SIGTERM)
    return True


def run_resumable(
    rank: int, folder: str, killed_at: int | None, vec_normalize: bool, how: Callable[[At], bool] = kill, every: int = 1
) -> dict[str, Any]:
    env: VecEnv = make_vec_env("CartPole-v1", 2)
    env = VecNormalize(env) if vec_normalize else env
    resumed = any(Path(folder).glob("*.zip"))
    make = partial(TRPO.resume, folder) if resumed else partial(TRPO, "MlpPolicy", **COMMON)
    model = make(env=env, distributed=True)
    callbacks: list[BaseCallback] = [ResumeCallback(folder, every=every)]
    if killed_at is not None:
        callbacks.append(At(how, 1, killed_at))
    return {"resumed": resumed, **result_of(model.learn(5 * 4 * N_STEPS, callback=callbacks))}


@pytest.mark.parametrize("vec_normalize", [False, True])
def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, vec_normalize: bool) -> None:
    undisturbed = run_ranks(2, run_resumable, str(tmp_path / "a"), None, vec_normalize)
    killed = run_ranks(2, run_resumable, str(tmp_path / "b"), 3 * N_STEPS + 7, vec_normalize)
    assert isinstance(killed[0], RuntimeError)
    assert isinstance(killed[1], EndedError)
    goes_on = run_ranks(2, run_resumable, str(tmp_path / "b"), None, vec_normalize)
    assert [result["resumed"] for result in (*undisturbed, *goes_on)] == [False, False, True, True]
    for mine, theirs in zip(goes_on, undisturbed, strict=True):
        np.testing.assert_array_equal(mine["parameters"], theirs["parameters"])
        assert mine["episodes"] == theirs["episodes"]
        for ours, others in zip(mine["statistics"], theirs["statistics"], strict=True):
            np.testing.assert_array_equal(ours, others)
    with pytest.raises(ValueError, match=r"has 2 processes, and now there is 1: start it with `torchrun --nproc-per-node 2`"):
        TRPO.resume(tmp_path / "b", make_vec_env("CartPole-v1", 2))


def test_a_signal_to_one_process_saves_and_ends_all(tmp_path: Path) -> None:
    results = run_ranks(2, run_resumable, str(tmp_path), N_STEPS + 7, False, terminate, 100)
    assert [type(result) for result in results] == [SystemExit] * 2
    assert [result.code for result in results] == [143, 143]
    assert max(int(path.stem.rpartition("_")[2]) for path in tmp_path.glob("*.zip")) == 2 * 4 * N_STEPS


def save_at_other_times(rank: int, folder: str) -> str:
    try:
        run_resumable(rank, folder, None, False, every=1 + rank)
    except ValueError as error:
        return str(error)
    return ""


def test_processes_that_save_at_other_times_are_refused(tmp_path: Path) -> None:
    message = (
        "all processes must have the same ResumeCallback: those of rank 0 save every [1] updates, those of rank 1 every [2]"
    )
    assert run_ranks(2, save_at_other_times, str(tmp_path)) == [message] * 2


def bounds_of_single_rollouts(rank: int) -> list[float]:
    model, bounds = build("plain", 1, target_kl="lin_0.02", scale_target_kl=False, distributed=True), []
    for _ in range(2):
        model.set_logger(configure(None, []))
        model.learn(2 * N_STEPS, reset_num_timesteps=False)
        bounds.append(model.logger.name_to_value["train/target_kl"])
    return bounds


@pytest.mark.filterwarnings("ignore:`learn` is called")
def test_a_learn_of_one_rollout_of_all_keeps_the_first_value_of_a_schedule() -> None:
    assert run_ranks(2, bounds_of_single_rollouts) == [[0.02, 0.02], [0.02, 0.02]]
