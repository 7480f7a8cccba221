"""
Speed of sb3-trpo against sb3-contrib's TRPO and SB3's PPO: whole runs, the update alone, and where the time goes.

Both sides train in one process on one thread, in turns; a figure is the median over the rounds of the ratio of a round (at
most five rounds for the update alone). Every case has a process of its own, so that none inherits another's memory.
Whole runs are collection, update and logging, with every check switched on. ``n_steps``, ``batch_size``,
``n_critic_updates`` and ``cg_max_steps`` are equal on both sides (sb3-contrib's defaults); PPO has its own defaults. ::

    python -m benchmarks.speed --chart docs/img/speed.png  # the whole table, about 10 minutes
    python -m benchmarks.speed --quick                     # fewer rounds, under 2 minutes
    python -m benchmarks.speed --device cuda               # both sides on the GPU
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import sb3_contrib
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from benchmarks.train import PACKAGES
from sb3_trpo import TRPO
from sb3_trpo.rollout import numpy_actor as actor
from sb3_trpo.rollout import recorders as recorder
from sb3_trpo.step import trust_region
from sb3_trpo.update import fisher, surrogate

SHARED: dict[str, Any] = {
    "n_steps": 2048,
    "batch_size": 128,
    "n_critic_updates": 10,
    "cg_max_steps": 15,
    "seed": 0,
}
PPO_SETTINGS: dict[str, Any] = {"n_steps": 2048, "seed": 0}
Env = Callable[[], Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """
    One comparison.

    :param label: name in the table
    :param floor: ratio that must be reached, if there is one
    :param aim: ratio to aim at
    :param env: makes the environment, or gives its id
    :param ppo: whether the peer is PPO
    :param settings: further hyperparameters of both
    """

    label: str
    floor: float | None
    aim: float | None
    env: Env
    ppo: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def goals(self) -> tuple[str, str]:
        """
        :return: floor and aim as cells of the table
        """
        return f"{self.floor}x" if self.floor else "", f"{self.aim}x" if self.aim else ""

    def models(self, device: str) -> tuple[OnPolicyAlgorithm, OnPolicyAlgorithm]:
        """
        :param device: of both models
        :return: ours and the peer
        """
        settings = {**SHARED, **self.settings, "device": device}
        ours = TRPO("MlpPolicy", self.env(), **settings)
        if self.ppo:
            return ours, PPO("MlpPolicy", self.env(), device=device, **PPO_SETTINGS)
        return ours, sb3_contrib.TRPO("MlpPolicy", self.env(), **settings)


def vec_env(env_id: str, n_envs: int, normalize: bool = False) -> Any:
    """
    :param env_id: environment id
    :param n_envs: number of environments
    :param normalize: whether to wrap them in ``VecNormalize``
    :return: what a user makes with ``make_vec_env``
    """
    env = make_vec_env(env_id, n_envs=n_envs, seed=0)
    return VecNormalize(env) if normalize else env


WHOLE_RUNS = [
    Case("HalfCheetah-v5, one env, against sb3-contrib TRPO", 4.0, 6.0, lambda: "HalfCheetah-v5"),
    Case("HalfCheetah-v5, one env, against SB3 PPO", 5.5, 8.0, lambda: "HalfCheetah-v5", ppo=True),
    Case("CartPole-v1, one env, against sb3-contrib TRPO", 3.5, 6.0, lambda: "CartPole-v1"),
    Case("Hopper-v5, likewise", 2.6, 4.0, lambda: "Hopper-v5"),
    Case("Walker2d-v5, likewise", 2.4, 3.5, lambda: "Walker2d-v5"),
    Case("Ant-v5, likewise", 1.7, 2.2, lambda: "Ant-v5"),
    Case(
        "HalfCheetah-v5, 8 envs of `make_vec_env`, likewise",
        2.5,
        4.0,
        lambda: vec_env("HalfCheetah-v5", 8),
    ),
    Case(
        "the same 8 envs with `n_steps=256`, likewise",
        None,
        None,
        lambda: vec_env("HalfCheetah-v5", 8),
        settings={"n_steps": 256},
    ),
    Case(
        "HalfCheetah-v5 as the Zoo runs it (`make_vec_env`, `VecNormalize`), likewise",
        2.5,
        3.5,
        lambda: vec_env("HalfCheetah-v5", 1, normalize=True),
    ),
]
UPDATES = [
    Case("update alone, 2,048 samples, against sb3-contrib TRPO", 2.5, 5.0, lambda: "HalfCheetah-v5"),
    Case(
        "update alone, 20,480 samples, 256-256 nets, likewise",
        2.5,
        5.0,
        lambda: "HalfCheetah-v5",
        settings={"n_steps": 20480, "policy_kwargs": {"net_arch": [256, 256]}},
    ),
]
SHARES = [("HalfCheetah-v5", 0.30, 0.50), ("Hopper-v5", 0.45, 0.65), ("Ant-v5", 0.55, 0.75)]


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """
    :param function: a function of this module
    :param arguments: its arguments; cases go by their place in the list
    :return: its result, computed in a new process
    """
    with ProcessPoolExecutor(1, get_context("spawn"), th.set_num_threads, (1,)) as pool:
        return pool.submit(function, *arguments).result()


def seconds(function: Callable[[], object]) -> float:
    """
    :param function: what to time
    :return: seconds of one call
    """
    started = now()
    function()
    return now() - started


def now() -> float:
    """
    :return: the time in seconds, once a GPU in use has done its work
    """
    if th.cuda.is_available():
        th.cuda.synchronize()
    return time.perf_counter()


def learn(model: OnPolicyAlgorithm) -> float:
    """
    :param model: a model that has learned before
    :return: seconds of one iteration: a rollout and its update
    """
    return seconds(lambda: model.learn(model.n_steps * model.n_envs, reset_num_timesteps=False))


Models = tuple[OnPolicyAlgorithm, OnPolicyAlgorithm]


def whole_run(models: Models, rounds: int) -> tuple[float, float, float]:
    """
    :param models: ours and the peer's
    :param rounds: turns of both sides
    :return: median ratio; our and the peer's median env steps per second
    """
    ours, peer = models
    for model in models:
        model.learn(model.n_steps * model.n_envs)
    pairs = [(learn(ours), learn(peer)) for _ in range(rounds)]
    steps = ours.n_steps * ours.n_envs
    ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    return ratio, *(steps / statistics.median(side) for side in zip(*pairs, strict=True))


def update_alone(models: Models, rounds: int) -> tuple[float, float, float]:
    """
    :param models: ours and the peer's
    :param rounds: turns of both sides
    :return: median ratio; our and the peer's median updates per second
    """
    times: tuple[list[float], list[float]] = ([], [])
    for model, record in zip(models, times, strict=True):
        model.train = _timed(model.train, record)  # type: ignore[method-assign]
        model.learn(model.n_steps * model.n_envs)
    for _ in range(rounds):
        for model in models:
            learn(model)
    mine, theirs = (record[1:] for record in times)
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    return ratio, 1.0 / statistics.median(mine), 1.0 / statistics.median(theirs)


def _whole_run_of(index: int, device: str, rounds: int) -> tuple[float, float, float]:
    return whole_run(WHOLE_RUNS[index].models(device), rounds)


def _update_of(index: int, device: str, rounds: int) -> tuple[float, float, float]:
    return update_alone(UPDATES[index].models(device), rounds)


def share_of_bare_env(env_id: str, rounds: int) -> tuple[float, float, float]:
    """
    :param env_id: environment id
    :param rounds: turns of both sides
    :return: median share; our and the bare environment's env steps per second
    """
    model = TRPO("MlpPolicy", env_id, device="cpu", **SHARED)
    model.learn(model.n_steps)
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (model.n_steps, *(env.action_space.shape or ())))

    def bare() -> None:
        for action in actions.astype(np.float32):
            if env.step(action)[2]:
                env.reset()

    pairs = [(learn(model), seconds(bare)) for _ in range(rounds)]
    share = statistics.median(theirs / mine for mine, theirs in pairs)
    return share, *(model.n_steps / statistics.median(side) for side in zip(*pairs, strict=True))


def peak_memory(n_steps: int) -> float:
    """
    Peak memory of this process in one update, beyond the rollout buffer and one flattened copy of it.

    :param n_steps: samples
    :return: MB
    """
    model = TRPO("MlpPolicy", "HalfCheetah-v5", device="cpu", **{**SHARED, "n_steps": 512})
    model.learn(512)  # whatever is allocated once
    model.n_steps = n_steps
    buffer = model.rollout_buffer = type(model.rollout_buffer)(n_steps, model.observation_space, model.action_space, "cpu")
    rng = np.random.default_rng(0)
    for name in ("observations", "actions", "advantages", "returns", "values"):
        array = getattr(buffer, name)
        array[:] = rng.standard_normal(array.shape)
    buffer.log_probs[:] = -8.0
    buffer.full = True
    copy = sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))
    before = memory("VmRSS")
    model.train()
    return (memory("VmHWM") - before - copy) / 1e6


def memory(key: str) -> int:
    """
    :param key: VmRSS for now, VmHWM for the peak
    :return: bytes of this process, from Linux's own account
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) * 1024


def _timed(function: Callable[..., Any], record: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = now()
        result = function(*args, **kwargs)
        record.append(now() - started)
        return result

    return timed


PARTS: dict[str, tuple[Any, str]] = {
    "env, with its wrappers": (VecEnv, "step"),
    "actor": (actor.NumpyActor, "act"),
    "buffer": (recorder.DeferredRecorder, "record"),
    "values, log-probs and advantages": (recorder.DeferredRecorder, "finish"),
    "surrogate and its gradient": (surrogate.Surrogate, "__init__"),
    "Fisher products": (fisher.FisherVectorProduct, "__call__"),
    "line search": (trust_region, "backtracking_line_search"),
    "critic": (TRPO, "_fit_critic"),
}


@contextmanager
def split() -> Iterator[dict[str, list[float]]]:
    """
    :return: seconds of each part of a run, filled while the context lasts
    """
    records: dict[str, list[float]] = {label: [] for label in PARTS}
    before = {label: getattr(owner, name) for label, (owner, name) in PARTS.items()}
    for label, (owner, name) in PARTS.items():
        setattr(owner, name, _timed(before[label], records[label]))
    try:
        yield records
    finally:
        for label, (owner, name) in PARTS.items():
            setattr(owner, name, before[label])


def profile(env_id: str, rounds: int) -> list[tuple[str, float]]:
    """
    :param env_id: environment id
    :param rounds: iterations
    :return: microseconds an env step of every part, of the rest, and of all
    """
    model = TRPO("MlpPolicy", env_id, device="cpu", **SHARED)
    model.learn(model.n_steps)
    with split() as records:
        total = sum(learn(model) for _ in range(rounds))
    scale = 1e6 / (rounds * model.n_steps)
    rows = [(label, sum(record) * scale) for label, record in records.items()]
    rows.append(("rest", total * scale - sum(value for _, value in rows)))
    return [*rows, ("all", total * scale)]


def main(arguments: list[str]) -> None:
    """
    Measure and print.

    :param arguments: the command line, without the program
    """
    parser = argparse.ArgumentParser(description="Speed of sb3-trpo against its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--chart", type=Path, help="draw the ratios as bars in this file")
    parser.add_argument("--device", default="cpu", help="as torch names it; where it is not the CPU, without the last tables")
    options = parser.parse_args(arguments)
    device, quick, rounds = options.device, options.quick, 3 if options.quick else 11
    ratios: dict[str, float] = {}

    table_head(PACKAGES, device, rounds)
    for index, case in enumerate(WHOLE_RUNS):
        ratio, mine, theirs = alone(_whole_run_of, index, device, rounds)
        ratios[case.label] = ratio
        table_row(case.label, f"{ratio:.2f}x", f"{mine:,.0f} steps/s", f"{theirs:,.0f} steps/s", *case.goals())
    for index, case in enumerate(UPDATES[: 1 if quick else None]):
        ratio, mine, theirs = alone(_update_of, index, device, min(rounds, 5))
        ratios[case.label] = ratio
        table_row(case.label, f"{ratio:.2f}x", f"{1e3 / mine:,.0f} ms", f"{1e3 / theirs:,.0f} ms", *case.goals())
    if options.chart:
        draw(options.chart, ratios)
    if device != "cpu":
        return
    for env_id, floor, aim in SHARES:
        share, mine, bare = alone(share_of_bare_env, env_id, rounds)
        label = f"share of the bare env's rate, {env_id}"
        table_row(label, f"{share:.0%}", f"{mine:,.0f} steps/s", f"{bare:,.0f} steps/s", f"{floor:.0%}", f"{aim:.0%}")
    for n_steps in (20_480, 204_800):
        label = f"peak memory of the update beyond the buffer and a copy of it, {n_steps:,} samples"
        table_row(label, f"{alone(peak_memory, n_steps):.0f} MB", "", "", "100 MB", "")

    for env_id in ("HalfCheetah-v5", "CartPole-v1"):
        print(f"\n| {env_id}: part | µs an env step |\n|---|---|")
        for label, value in alone(profile, env_id, rounds):
            print(f"| {label} | {value:.1f} |")


def draw(path: Path, ratios: dict[str, float]) -> None:
    """
    Draw the ratios as bars.

    :param path: the picture to write
    :param ratios: how many times as fast as the peer, by case
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = [label.replace("likewise", "against sb3-contrib TRPO").replace("`", "") for label in ratios]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(labels) + 0.8), layout="constrained")
    bars = axes.barh(labels, list(ratios.values()))
    axes.bar_label(bars, fmt="%.1fx", padding=3)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set(xlabel="times as fast as the peer")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table_head(packages: list[str], device: str, rounds: int) -> None:
    """
    Print versions, hardware and rounds, and the first lines of a Markdown table.

    :param packages: whose versions to print
    :param device: of the models
    :param rounds: turns of both sides
    """
    where = "one thread" if device == "cpu" else f"one thread and an {th.cuda.get_device_name(device)}"
    print(", ".join(f"{package} {version(package)}" for package in packages) + f"; {where}; {rounds} rounds\n")
    print("| case | measured | ours | peer | floor | aim |\n|---|---|---|---|---|---|")


def table_row(*cells: str) -> None:
    """
    :param cells: a row of a Markdown table to print
    """
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
