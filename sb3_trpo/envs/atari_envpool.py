"""EnvPool's Atari games, treated as SB3 treats them; needs ``pip install sb3-trpo[envpool]``."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_trpo.checks import check_integers
from sb3_trpo.envs.envpool import EnvPoolVecEnv, Infos, refuse_settings

_ACTION_NOOP, _ACTION_FIRE = 0, 1
_MOST_FRAMES = 108_000
"""Number of frames after which a game is truncated, as in ``gymnasium``."""


class AtariEnvPool(EnvPoolVecEnv):
    """
    Atari games of EnvPool, treated as SB3's ``AtariWrapper`` treats them.

    Frames are grey, and an observation is the maximum of the last two. A game starts with no-ops, and with FIRE if it waits
    for that. A lost life ends the episode, and the game continues. The reward is replaced by its sign. ``info["episode"]``
    describes whole games, with the score itself and the length in frames. Wrap it in a ``VecFrameStack``, as after
    ``make_atari_env``.

    :param game: ``Breakout``, ``BreakoutNoFrameskip-v4``, or ``ALE/Breakout-v5``, the last of which repeats an action with
        probability 0.25 unless ``repeat_action_probability`` says otherwise
    :param n_envs: number of environments
    :param seed: seed of the environments
    :param num_threads: threads that step them; 0: EnvPool's choice
    :param noop_max: largest number of no-ops, in frames, at the start of a game, at least 1
    :param frame_skip: number of frames for which an action is repeated
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
        refuse_settings(settings, {**own_names, "use_fire_reset": "FIRE is pressed where a game waits for it"})
        check_integers(1, frame_skip=frame_skip, noop_max=noop_max)  # EnvPool always starts with a no-op
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
                # this class does the following itself, as SB3 does
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

    def _infos(self, n: int) -> Infos:
        return [{} for _ in range(n)]  # as AtariWrapper, whose rewards and lives are not EnvPool's

    def _restart(self, ids: np.ndarray) -> np.ndarray:
        observations = self._next_life(ids)
        return self._fire(ids) if self._fires else observations

    def _next_life(self, ids: np.ndarray) -> np.ndarray:
        """Take one no-op after a lost life; start a new game after the last life, or if the no-op ended the game."""
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
        """Take FIRE and the action after it, as ``FireResetEnv`` does; restart episodes that end on the way."""
        observations = np.empty(0)
        for action in (_ACTION_FIRE, _ACTION_FIRE + 1):
            observations, _, terminated, truncated, _ = self._advance(np.full(len(ids), action), ids)
            ended = terminated | truncated
            if ended.any():
                observations = observations.copy()
                observations[ended] = self._next_life(ids[ended])
        return observations


def _parse_game(game: str) -> tuple[str, bool]:
    """Return the name of the game, and whether actions are sticky."""
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
        raise ValueError(f"ale-py does not have `game` = {name!r}")
    ale.loadROM(rom)
    actions: Sequence[Any] = ale.getLegalActionSet() if full_action_space else ale.getMinimalActionSet()
    return len(actions) >= 3 and actions[_ACTION_FIRE] == ale_py.Action.FIRE
