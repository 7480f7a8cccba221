"""
Measures how training scales with processes: env steps per second, time in sums, and a model of many ranks.

Run it on an idle machine; the runs of all arms take turns:

    python -m benchmarks.scaling --env HalfCheetah-v5 --updates 20 --repeats 3 --out runs/scaling.json

With ``--against`` it also times sb3-contrib's TRPO and SB3's PPO with a ``SubprocVecEnv`` of two processes and eight
environments. ``--ranks 2`` is the number of processes to compare with one; each rank has the settings of one rank (weak
scaling).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from benchmarks.common.environments import is_game, make_env
from benchmarks.common.settings import FIXED_BOUND
from sb3_trpo import TRPO
from sb3_trpo.processes.group import Processes

ENVS_OF_SUBPROC = 8
_SIZES = (1, 1_000, 10_000, 100_000)
"""Numbers that are added up to measure latency and bandwidth."""


class Marks(BaseCallback):
    """Notes when each rollout begins, so that the time of the first update, which compiles and allocates, is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, int]] = []

    def _on_rollout_start(self) -> None:
        self.marks.append((time.perf_counter(), self.num_timesteps))

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.marks.append((time.perf_counter(), self.num_timesteps))

    def steps_per_second(self) -> float:
        """
        Compute the speed after the first update.

        :return: env steps per second, of all processes
        """
        (started, before), (ended, after) = self.marks[1], self.marks[-1]
        return (after - before) / (ended - started)


def train_shared(env_id: str, n_envs: int, n_steps: int, n_updates: int) -> dict[str, Any]:
    """
    Train in this process, and in the others that ``torchrun`` has started.

    :param env_id: the environment
    :param n_envs: number of environments of each process
    :param n_steps: steps of each environment in a rollout
    :param n_updates: number of updates
    :return: speed, and the numbers and seconds of the sums of policy step and critic in an update
    """
    policy = "CnnPolicy" if is_game(env_id) else "MlpPolicy"
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    batch_size = 128 * n_ranks  # global: each rank has mini-batches as if it were alone
    env = make_env(env_id, n_envs, 0)
    model = TRPO(policy, env, n_steps=n_steps, batch_size=batch_size, seed=0, distributed=True, **FIXED_BOUND)
    marks, sums = Marks(), SumsOfUpdates(model)
    model.learn(n_updates * n_steps * model.share.total, callback=marks)
    return {"steps_per_second": marks.steps_per_second(), **sums.of_an_update(), "latencies": measure_latencies(model)}


class SumsOfUpdates:
    """
    Counts and times the sums of each update, apart for the policy step and the critic.

    :param model: the model, before it learns
    """

    def __init__(self, model: TRPO) -> None:
        self._model = model
        self._of: dict[str, list[tuple[int, float]]] = {"update": [], "critic": []}
        model.train = self._timed("update", model.train)  # type: ignore[method-assign]
        model._fit_critic = self._timed("critic", model._fit_critic)  # type: ignore[method-assign]

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            workers: Any = self._model.workers
            before = getattr(workers, "n_sums", 0), workers.seconds
            result = function(*args, **kwargs)
            self._of[name].append((getattr(workers, "n_sums", 0) - before[0], workers.seconds - before[1]))
            return result

        return timed

    def of_an_update(self) -> dict[str, float]:
        """
        Take the median over the updates, without the first.

        :return: numbers and milliseconds by name
        """
        update, critic = (np.array(self._of[name][1:] or self._of[name]) for name in ("update", "critic"))
        policy = np.median(update - critic, axis=0)
        of_critic = np.median(critic, axis=0)
        return {
            "policy_sums": float(policy[0]),
            "policy_milliseconds": 1e3 * float(policy[1]),
            "critic_sums": float(of_critic[0]),
            "critic_milliseconds": 1e3 * float(of_critic[1]),
        }


def measure_latencies(model: TRPO, repeats: int = 50) -> dict[str, float]:
    """
    Time sums of vectors through the connections between processes, as several machines have them.

    :param model: the model, whose workers are used
    :param repeats: number of sums of each size
    :return: median seconds of a sum, by the number of elements
    """
    workers = model.workers
    if not isinstance(workers, Processes):
        return {}
    workers.through_connections()
    latencies = {}
    for size in _SIZES:
        vector, seconds = th.ones(size), []
        for _ in range(repeats):
            started = time.perf_counter()
            workers.sum(vector)
            seconds.append(time.perf_counter() - started)
        latencies[str(size)] = median(seconds)
    return latencies


def alpha_beta(latencies: dict[str, float], ranks: int) -> tuple[float, float]:
    """
    Fit the model t(n) = 2 (R - 1) α + 2 (R - 1) / R · n β of a ring of R ranks to measured sums.

    Source: Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations in MPICH, section 4.5.

    :param latencies: seconds by the number of elements
    :param ranks: R
    :return: α in seconds a message, β in seconds an element, both at least 0
    """
    sizes = np.array([float(size) for size in latencies])
    seconds = np.array(list(latencies.values()))
    columns = np.stack([np.full(len(sizes), 2.0 * (ranks - 1)), 2.0 * (ranks - 1) / ranks * sizes], axis=1)
    weights = 1.0 / seconds  # relative errors count, or the longest vector would decide alone
    solution = np.linalg.lstsq(columns * weights[:, None], seconds * weights, rcond=None)[0]
    alpha, beta = np.maximum(solution, 0.0).tolist()
    return alpha, beta


def predicted_seconds(alpha: float, beta: float, ranks: int, size: int, tree: bool) -> float:
    """
    Predict the seconds of a sum.

    :param alpha: seconds a message
    :param beta: seconds an element
    :param ranks: R
    :param size: number of elements n
    :param tree: whether messages go through a tree, as gloo and nccl do for short vectors on many ranks: 2 log2(R) messages
    :return: seconds
    """
    messages = 2.0 * np.ceil(np.log2(ranks)) if tree else 2.0 * (ranks - 1)
    return float(messages * alpha + 2.0 * (ranks - 1) / ranks * size * beta)


def train_subproc(kind: str, env_id: str, n_steps: int, n_updates: int) -> dict[str, Any]:
    """
    Train with SB3's processes for environments.

    :param kind: "ppo" for SB3's PPO, "contrib" for sb3-contrib's TRPO
    :param env_id: the environment
    :param n_steps: env steps of a rollout in all
    :param n_updates: number of updates
    :return: the speed
    """
    import sb3_contrib

    # SB3 starts a process for each environment
    env = make_vec_env(env_id, ENVS_OF_SUBPROC, vec_env_cls=SubprocVecEnv)
    marks = Marks()
    cls: Any = PPO if kind == "ppo" else sb3_contrib.TRPO
    steps = max(1, n_steps // ENVS_OF_SUBPROC)
    cls("MlpPolicy", env, n_steps=steps, batch_size=64, seed=0).learn(n_updates * steps * ENVS_OF_SUBPROC, callback=marks)
    env.close()
    return {"steps_per_second": marks.steps_per_second()}


def run_arm(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """
    Run one arm in processes of its own.

    :param arm: "1" or another number of ranks, "ppo" or "contrib"
    :param options: the command line
    :return: its result
    """
    size = int(arm) if arm.isdigit() else 1
    module = ["-m", "benchmarks.scaling", "--arm", arm, "--env", options.env, "--n-envs", str(options.n_envs)]
    module += ["--n-steps", str(options.n_steps), "--updates", str(options.updates)]
    launcher = [sys.executable]
    if size > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *module], capture_output=True, text=True, check=False, env=environment)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not found:
        raise RuntimeError(f"the arm {arm!r} failed:\n{done.stderr[-2_000:]}")
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


def summarize(results: dict[str, list[dict[str, Any]]], ranks: int) -> dict[str, Any]:
    """
    Compare the arms.

    :param results: the results of each arm
    :param ranks: number of ranks of the larger arm
    :return: medians, ratios, and the model of 64 ranks
    """
    speeds = {arm: median(result["steps_per_second"] for result in runs) for arm, runs in results.items()}
    shared = results[str(ranks)]
    names = ("policy_sums", "policy_milliseconds", "critic_sums", "critic_milliseconds")
    of_update = {name: median(result[name] for result in shared) for name in names}
    latencies = {size: median(result["latencies"][size] for result in shared) for size in shared[0]["latencies"]}
    alpha, beta = alpha_beta(latencies, ranks)
    model = {}
    for name, sums, size in (("policy", "policy_sums", 10_000), ("critic", "critic_sums", 10_000)):
        for shape, tree in (("ring", False), ("tree", True)):
            seconds = of_update[sums] * predicted_seconds(alpha, beta, 64, size, tree)
            model[f"{name}, {shape}: milliseconds of an update on 64 ranks"] = 1e3 * seconds
    return {
        "steps_per_second": speeds,
        "ratio": {arm: speeds[str(ranks)] / speed for arm, speed in speeds.items()},
        **of_update,
        "latencies": latencies,
        "alpha_microseconds": 1e6 * alpha,
        "beta_nanoseconds": 1e9 * beta,
        **model,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Read the command line.

    :param arguments: its words; None: those of this process
    :return: the options
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--n-envs", type=int, default=1, help="environments of each rank")
    parser.add_argument("--n-steps", type=int, default=1_024, help="steps of each environment in a rollout")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", action="store_true", help="also time SubprocVecEnv with PPO and sb3-contrib's TRPO")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run all arms in turns, or one of them.

    :param arguments: the command line; None: that of this process
    """
    options = parse(arguments)
    if options.arm in ("ppo", "contrib"):
        print("RESULT", json.dumps(train_subproc(options.arm, options.env, 2_048, options.updates)))
    elif options.arm:
        result = train_shared(options.env, options.n_envs, options.n_steps, options.updates)
        if int(os.environ.get("RANK", "0")) == 0:
            print("RESULT", json.dumps(result))
    else:
        arms = ["1", str(options.ranks), *(["ppo", "contrib"] if options.against else [])]
        results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
        for _ in range(options.repeats):
            for arm in arms:
                results[arm].append(run_arm(arm, options))
        summary = {"env": options.env, **summarize(results, options.ranks)}
        print(json.dumps(summary, indent=2))
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({**summary, "runs": results}, indent=2))


if __name__ == "__main__":
    main()
