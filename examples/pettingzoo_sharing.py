"""
Train several agents of a PettingZoo environment with one policy that all of them share.

    pip install pettingzoo
    python examples/pettingzoo_sharing.py

Every agent is one environment of a ``VecEnv``: TRPO sees the agents' observations as one batch, and needs no change.
"""

import argparse
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from sb3_trpo import TRPO, evaluate_policy


class Spread(ParallelEnv):  # type: ignore[misc]  # PettingZoo has no type hints
    """Three agents on a line share the reward: agents lose it where they crowd, and where they leave the middle."""

    metadata: ClassVar[dict[str, Any]] = {"name": "spread_v0"}
    possible_agents: ClassVar[list[str]] = ["left", "centre", "right"]
    render_mode = None
    n_steps = 25

    def observation_space(self, agent: str) -> spaces.Box:
        """Return the space of an observation: the own place, and where the others are from there."""
        return spaces.Box(-4.0, 4.0, (3,), dtype=np.float32)

    def action_space(self, agent: str) -> spaces.Box:
        """Return the space of an action: the way to go."""
        return spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put all agents near the middle."""
        if seed is not None or not hasattr(self, "random"):
            self.random = np.random.default_rng(seed)
        self.agents, self.steps = list(self.possible_agents), 0
        self.places = self.random.normal(0.0, 0.1, 3)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict[str, Any], ...]:
        """Move all agents."""
        moves = np.array([float(actions[agent][0]) for agent in self.agents])
        self.places = np.clip(self.places + 0.1 * moves, -2.0, 2.0)
        gaps = np.abs(self.places[:, None] - self.places)[np.triu_indices(3, 1)]
        reward = -float(np.maximum(0.5 - gaps, 0.0).sum() + np.maximum(np.abs(self.places) - 0.6, 0.0).sum())
        self.steps += 1
        agents, ended = self.agents, self.steps == self.n_steps
        obs = self._observe()
        self.agents = [] if ended else agents
        everyone = [dict.fromkeys(agents, value) for value in (reward, False, ended)]
        return obs, *everyone, {agent: {} for agent in agents}

    def _observe(self) -> dict[str, Any]:
        ways = self.places - self.places[:, None]
        seen = [np.array([place, *np.delete(ways[i], i)], dtype=np.float32) for i, place in enumerate(self.places)]
        return dict(zip(self.agents, seen, strict=True))


class SharedPolicyVecEnv(VecEnv):
    """
    Presents the agents of parallel environments as environments of their own.

    All agents need the same spaces, and stay until the episode ends.

    :param envs: the parallel environments
    """

    def __init__(self, envs: Sequence[ParallelEnv]) -> None:
        self.envs = envs
        self.agents = list(envs[0].possible_agents)
        pairs = [(env.observation_space(agent), env.action_space(agent)) for env in envs for agent in env.possible_agents]
        if any(pair != pairs[0] for pair in pairs):
            raise ValueError("agents that share a policy need the same spaces")
        super().__init__(len(pairs), *pairs[0])

    def reset(self) -> np.ndarray:
        """Begin episodes of all environments, and return the observations of all agents."""
        obs = [env.reset(seed=seed)[0] for env, seed in zip(self.envs, self._seeds[:: len(self.agents)], strict=True)]
        self._reset_seeds()
        return self._stack(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions."""
        self.actions = actions.reshape(len(self.envs), len(self.agents), *actions.shape[1:])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all environments; where an episode ends, the next one begins."""
        all_obs, rewards, dones, infos = [], [], [], []
        for env, actions in zip(self.envs, self.actions, strict=True):
            obs, reward, terminated, truncated, _ = env.step(dict(zip(self.agents, actions, strict=True)))
            for agent in self.agents:
                rewards.append(reward[agent])
                dones.append(terminated[agent] or truncated[agent])
                info = {"terminal_observation": obs[agent]} if dones[-1] else {}
                infos.append({**info, "TimeLimit.truncated": truncated[agent] and not terminated[agent]})
            if dones[-1]:
                obs, _ = env.reset()
            all_obs.append(obs)
        return self._stack(all_obs), np.array(rewards, dtype=np.float32), np.array(dones), infos

    def _stack(self, obs: list[dict[str, Any]]) -> np.ndarray:
        return np.stack([each[agent] for each in obs for agent in self.agents])

    def close(self) -> None:
        """Close all environments."""
        for env in self.envs:
            env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the environments of some agents."""
        return [getattr(self.envs[i // len(self.agents)], attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environments of some agents."""
        for i in self._get_indices(indices):
            setattr(self.envs[i // len(self.agents)], attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the environments of some agents."""
        return [method(*args, **kwargs) for method in self.get_attr(method_name, indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Answer that no environment has a wrapper of gymnasium."""
        return [False for _ in self._get_indices(indices)]


def main() -> None:
    """Train, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="steps of the training, summed over the agents")
    steps = parser.parse_args().steps

    env = VecMonitor(SharedPolicyVecEnv([Spread() for _ in range(2)]))
    model = TRPO("MlpPolicy", env, n_steps=256, batch_size=128, gamma=0.95, seed=0, device="cpu").learn(steps)
    mean, std = evaluate_policy(model, env, n_eval_episodes=30)
    print(f"return {mean:.1f} +/- {std:.1f}")


if __name__ == "__main__":
    main()
