"""EnvPool's environments, which step in C++ threads, as SB3's ``VecEnv``; needs ``pip install sb3-trpo[envpool]``."""

import re
import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_trpo.checks import check_integers

Infos = list[dict[str, Any]]

_ACTION_NOOP, _ACTION_FIRE = 0, 1
_MOST_FRAMES = 108_000
"""Frames after which a game is cut, as ``gymnasium`` cuts its games."""


class EnvPoolVecEnv(VecEnv):
    """
    Environments of EnvPool with the conventions of SB3.

    An environment that ended is reset within the same step, as in ``DummyVecEnv``: the observation returned is the first of
    the new episode, the last one is ``info["terminal_observation"]``, ``info["TimeLimit.truncated"]`` tells a time limit from
    an end, and ``info["episode"]`` has the episode's return and length and the seconds so far, as with ``Monitor``.

    :param env_id: EnvPool's id, for instance ``HalfCheetah-v5``
    :param n_envs: number of environments
    :param seed: seed of the environments; :meth:`seed` sets another
    :param num_threads: threads that step them; 0: EnvPool's choice
    :param settings: further settings of EnvPool
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if EnvPool does not have the environment, its observations are a dict, a number is out of range, or a
        setting has another name here
    """

    _length_of_a_step = 1
    """What a step adds to the length of an episode."""

    def __init__(self, env_id: str, n_envs: int = 1, seed: int | None = None, num_threads: int = 0, **settings: Any) -> None:
        self._envpool = _import_envpool()
        _refuse(settings, {"num_envs": "use `n_envs`", "batch_size": "all environments step at once"})
        check_integers(1, n_envs=n_envs)
        check_integers(0, num_threads=num_threads, seed=0 if seed is None else seed)
        if env_id not in self._envpool.list_all_envs():
            raise ValueError(f"EnvPool has no environment `env_id` = {env_id!r}; `envpool.list_all_envs()` has their names")
        self.env_id = env_id
        self._settings = {"num_envs": n_envs, "num_threads": num_threads, **settings}
        self._pool = self._make(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
        if not isinstance(self._pool.observation_space, gym.spaces.Box):
            self._pool.close()
            raise ValueError(f"the observations of `env_id` = {env_id!r} must be a Box, not {self._pool.observation_space}")
        super().__init__(n_envs, self._pool.observation_space, self._pool.action_space)
        self._all = np.arange(n_envs, dtype=np.int32)
        self._actions = np.zeros(0)
        self._returns, self._lengths = np.zeros(n_envs), np.zeros(n_envs, dtype=np.int64)
        self._started = time.time()
        self._begin(self._all)

    def _make(self, seed: int) -> Any:
        # SB3 draws seeds of 32 bits, EnvPool takes 31 and gives the environments consecutive ones
        return self._envpool.make(self.env_id, env_type="gymnasium", seed=seed % (2**31 - 2**16), **self._settings)

    def _begin(self, ids: np.ndarray) -> None:
        """Clear the statistics of the episode."""
        self._returns[ids], self._lengths[ids] = 0.0, 0

    def reset(self) -> VecEnvObs:
        """
        :return: first observations, shape (n_envs, ...)
        """
        if any(seed is not None for seed in self._seeds):
            self._pool.close()
            self._pool = self._make(int(self._seeds[0] or 0))
            self._reset_seeds()
        self._reset_options()
        self._begin(self._all)
        return self._first_observations()

    def _first_observations(self) -> np.ndarray:
        observations: np.ndarray = self._pool.reset()[0]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape (n_envs, ...)
        :raises ValueError: if the shape is another, or a discrete action is out of range
        """
        self._actions = np.asarray(actions)
        shape = (self.num_envs, *(self.action_space.shape or ()))
        if self._actions.shape != shape:  # EnvPool would read past their end
            raise ValueError(f"`actions` must be of shape {shape}, not {self._actions.shape}")
        if isinstance(self.action_space, gym.spaces.Discrete):
            n = int(self.action_space.n)
            outside = self._actions[(self._actions < 0) | (self._actions >= n)]
            if len(outside):
                raise ValueError(f"an action must be in 0 to {n - 1}, not {outside[0]}")

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations, rewards of shape (n_envs,), dones of shape (n_envs,), infos
        """
        observations, rewards, terminated, truncated, infos = self._advance(self._actions, self._all)
        dones = terminated | truncated
        for i, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        ended = np.flatnonzero(dones).astype(np.int32)
        if len(ended):
            observations = observations.copy()
            for i in ended.tolist():
                infos[i]["terminal_observation"] = observations[i].copy()
            observations[ended] = self._restart(ended)
        return observations, rewards, dones, infos

    def _advance(self, actions: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Step k environments; their rewards go to the statistics, which are reported where an episode ends."""
        actions = np.asarray(actions, dtype=self._pool.action_space.dtype)
        observations, rewards, terminated, truncated, self._pool_info = self._pool.step(actions, ids)
        self._returns[ids] += rewards
        self._lengths[ids] += self._length_of_a_step
        infos: Infos = [{} for _ in ids]
        for row in np.flatnonzero(terminated | truncated):
            infos[row]["episode"] = self._statistics(ids[row])
            self._begin(ids[row : row + 1])
        return observations, rewards.astype(np.float32), terminated, truncated, infos

    def _statistics(self, i: int) -> dict[str, float]:
        seconds = round(time.time() - self._started, 6)
        return {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i]), "t": seconds}

    def _restart(self, ids: np.ndarray) -> np.ndarray:
        """First observations of new episodes; EnvPool resets what ended when it is stepped again."""
        no_action = np.zeros((len(ids), *(self.action_space.shape or ())), dtype=self._pool.action_space.dtype)
        observations: np.ndarray = self._pool.step(no_action, ids)[0]
        return observations

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        :param attr_name: an attribute of the pool
        :param indices: of which environments
        :return: its value, once an environment
        """
        value = None if attr_name == "render_mode" else getattr(self._pool, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        :raises NotImplementedError: EnvPool's environments cannot be changed one by one
        """
        raise NotImplementedError("the environments of an EnvPool have no attributes of their own")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        :raises NotImplementedError: EnvPool's environments cannot be called one by one
        """
        raise NotImplementedError("the environments of an EnvPool have no methods of their own")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """
        :param wrapper_class: a wrapper
        :param indices: of which environments
        :return: True for ``Monitor``, whose statistics this class reports
        """
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class AtariEnvPool(EnvPoolVecEnv):
    """
    Atari games of EnvPool, treated as SB3's ``AtariWrapper`` treats them.

    Grey frames, of which the last two are maximised; no-ops at the start; a lost life ends the episode, after which the
    game goes on; FIRE where the game waits for it; the sign of the reward. ``info["episode"]`` is of whole games, with the
    score itself and the length in frames. Put it in a ``VecFrameStack`` as one does with ``make_atari_env``.

    :param game: ``Breakout``, ``BreakoutNoFrameskip-v4``, or ``ALE/Breakout-v5``, the last of which repeats an action with
        probability 0.25 unless ``repeat_action_probability`` says otherwise
    :param n_envs: number of environments
    :param seed: seed of the environments
    :param num_threads: threads that step them; 0: EnvPool's choice
    :param noop_max: most no-ops, in frames, at the start of a game, at least 1
    :param frame_skip: frames an action lasts
    :param terminal_on_life_loss: whether a lost life ends the episode
    :param clip_reward: whether the reward is replaced by its sign
    :param settings: further settings of EnvPool
    :raises ImportError: if EnvPool or ale-py is not installed
    :raises ValueError: if EnvPool or ale-py does not have the game, a number is out of range, or a setting has another name
        here
    """

    def __init__(
        self,
        game: str,
        n_envs: int = 1,
        seed: int | None = None,
        num_threads: int = 0,
        noop_max: int = 30,
        frame_skip: int = 4,
        terminal_on_life_loss: bool = True,
        clip_reward: bool = True,
        **settings: Any,
    ) -> None:
        name, sticky = _parse_game(game)
        own_names = {"episodic_life": "use `terminal_on_life_loss`", "reward_clip": "use `clip_reward`"}
        _refuse(settings, {**own_names, "use_fire_reset": "FIRE is pressed where a game waits for it"})
        check_integers(1, frame_skip=frame_skip, noop_max=noop_max)  # EnvPool knows no start without a no-op
        self._terminal_on_life_loss = terminal_on_life_loss
        self._clip_reward = clip_reward
        self._length_of_a_step = frame_skip
        super().__init__(
            f"{name}-v5",
            n_envs,
            seed,
            num_threads,
            **{
                "stack_num": 1,
                "noop_max": noop_max,
                "frame_skip": frame_skip,
                "repeat_action_probability": 0.25 if sticky else 0.0,
                "max_episode_steps": _MOST_FRAMES // frame_skip,
                **settings,
                # what follows is done here, in the way of SB3
                "episodic_life": False,
                "reward_clip": False,
                "use_fire_reset": False,
            },
        )
        self._fires = _second_action_is_fire(name, settings.get("full_action_space", False))
        self._lives = np.zeros(n_envs, dtype=np.int64)
        self._over = np.ones(n_envs, dtype=bool)  # whether the game, not only a life, has ended

    def _first_observations(self) -> np.ndarray:
        observations, pool_info = self._pool.reset()
        self._lives[:] = pool_info["lives"]
        self._over[:] = False
        return self._fire(self._all) if self._fires else observations

    def _advance(self, actions: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        observations, rewards, terminated, truncated, infos = super()._advance(actions, ids)
        self._over[ids] = terminated | truncated
        lives = self._pool_info["lives"]
        for info, left in zip(infos, lives, strict=True):
            info["lives"] = int(left)
        if self._terminal_on_life_loss:
            # some games stay at 0 lives for a while before they are over
            terminated = terminated | ((lives > 0) & (lives < self._lives[ids]))
        self._lives[ids] = lives
        return observations, np.sign(rewards) if self._clip_reward else rewards, terminated, truncated, infos

    def _restart(self, ids: np.ndarray) -> np.ndarray:
        observations = self._next_life(ids)
        return self._fire(ids) if self._fires else observations

    def _next_life(self, ids: np.ndarray) -> np.ndarray:
        """One no-op after a lost life; a new game where it was the last one, or where the no-op ended it."""
        observations = np.empty((len(ids), *(self.observation_space.shape or ())), dtype=np.uint8)
        went_on = ~self._over[ids]
        if went_on.any():
            noops = np.full(went_on.sum(), _ACTION_NOOP)
            observations[went_on] = self._advance(noops, ids[went_on])[0]
        over = self._over[ids]
        if over.any():
            observations[over], *_, pool_info = self._pool.step(np.zeros(over.sum(), dtype=np.int32), ids[over])
            self._lives[ids[over]] = pool_info["lives"]
            self._over[ids[over]] = False
            self._begin(ids[over])
        return observations

    def _fire(self, ids: np.ndarray) -> np.ndarray:
        """FIRE and the action after it, as ``FireResetEnv`` does; begins anew what ends on the way."""
        observations = np.empty(0)
        for action in (_ACTION_FIRE, _ACTION_FIRE + 1):
            observations, _, terminated, truncated, _ = self._advance(np.full(len(ids), action), ids)
            ended = terminated | truncated
            if ended.any():
                observations = observations.copy()
                observations[ended] = self._next_life(ids[ended])
        return observations


def _refuse(settings: dict[str, Any], instead: dict[str, str]) -> None:
    for name in settings.keys() & instead.keys():
        raise ValueError(f"`{name}` = {settings[name]!r} cannot be set here; {instead[name]}")


def _parse_game(game: str) -> tuple[str, bool]:
    """Name of the game, and whether actions are sticky."""
    match = re.fullmatch(r"(ALE/)?([A-Za-z0-9]+?)(NoFrameskip-v4|-v5)?", game)
    if match is None:
        raise ValueError(f"`game` must be like 'Breakout', 'BreakoutNoFrameskip-v4' or 'ALE/Breakout-v5', not {game!r}")
    return match[2], match[1] is not None


def _second_action_is_fire(name: str, full_action_space: bool) -> bool:
    try:
        import ale_py
        from ale_py import roms
    except ImportError as error:
        raise ImportError("AtariEnvPool needs ale-py: pip install sb3-trpo[envpool]") from error
    ale = ale_py.ALEInterface()
    # tic_tac_toe_3d is TicTacToe3d
    rom_id = next((rom_id for rom_id in roms.get_all_rom_ids() if rom_id.replace("_", "") == name.lower()), "")
    rom = roms.get_rom_path(rom_id)
    if rom is None:
        raise ValueError(f"ale-py has no `game` {name!r}")
    ale.loadROM(rom)
    actions: Sequence[Any] = ale.getLegalActionSet() if full_action_space else ale.getMinimalActionSet()
    return len(actions) >= 3 and actions[_ACTION_FIRE] == ale_py.Action.FIRE


def _import_envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise ImportError("EnvPool is not installed: pip install sb3-trpo[envpool]") from error
    return envpool
