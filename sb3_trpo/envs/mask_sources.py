"""The places where environments keep their action masks, and how to find the one of an environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from traceback import walk_tb
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_trpo.checks import described
from sb3_trpo.distributions.action_masks import MaskLayout, refuse_forbidden

METHOD = "action_masks"
"""Name of the method of an environment, or of a ``VecEnv``, that returns masks."""

KEYS = ("action_mask", "action_masks")
"""Keys of masks in infos and in observations."""


class EnvMaskSource:
    """
    Asks for the action masks of the present states, and checks them.

    :param env: the environments
    """

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.step = 0
        self._layout = MaskLayout.of(env.action_space)
        self._last = np.empty(0)
        self.reset()

    @classmethod
    def suits(cls, env: VecEnv) -> bool:
        """
        Tell whether environments have masks there.

        :param env: environments that have been reset
        :return: whether they have
        """
        raise NotImplementedError

    def _ask(self, observations: Any) -> Any:
        """Return one mask for each environment."""
        raise NotImplementedError

    def _owner(self, env: int) -> str:
        return f"The action mask of environment {env} at step {self.step} of the rollout"

    def reset(self) -> None:
        """Take note that the environments have been reset."""

    def begin(self) -> None:
        """Take note that a rollout begins."""
        self.step = 0

    def masks(self, observations: Any) -> np.ndarray:
        """
        Ask which actions are possible in the present states.

        :param observations: the observations there, shape (n_envs, ...), or a dict of such
        :return: shape (n_envs, n), bool; at least one value of each choice is possible
        :raises ValueError: if a mask has a wrong length, other values than 0 and 1, or allows nothing, naming environment and
            step
        """
        self._last = self._layout.read(self._ask(observations), self.env.num_envs, self._owner)
        return self._last

    def observe(self, infos: Sequence[dict[str, Any]], dones: np.ndarray) -> None:
        """
        Take note of a step.

        :param infos: one per environment
        :param dones: whether an episode ended with the step, shape (n_envs,)
        """
        self.step += 1

    def get_state(self) -> Any:
        """
        Return what the masks of the present states come from, if it is kept here and not in the environments.

        :return: plain data
        """
        return None

    def set_state(self, state: Any) -> None:
        """
        Restore what the masks of the present states come from.

        :param state: a result of :meth:`get_state`
        """

    def explain(self, error: Exception, actions: np.ndarray) -> None:
        """
        Explain an error in a step, if an action was forbidden, or has become so since the environment was asked.

        :param error: the error
        :param actions: the actions of the step, shape (n_envs, ...)
        :raises ValueError: naming environment and step, if the mask now forbids the action, or did before
        """
        refuse_forbidden(self._layout, self._last[None], actions[None], self.step)


class OfVecEnv(EnvMaskSource):
    """The method or array ``action_masks`` of a ``VecEnv`` itself: shape (n_envs, n)."""

    @classmethod
    def suits(cls, env: VecEnv) -> bool:
        """See :meth:`EnvMaskSource.suits`."""
        return getattr(env, METHOD, None) is not None

    def _ask(self, observations: Any) -> Any:
        masks = getattr(self.env, METHOD)
        return masks() if callable(masks) else masks


class OfMethod(EnvMaskSource):
    """The method ``action_masks`` of every environment, through its wrappers, also in other processes."""

    @classmethod
    def suits(cls, env: VecEnv) -> bool:
        """See :meth:`EnvMaskSource.suits`."""
        with suppress(AttributeError, NotImplementedError):
            return bool(env.has_attr(METHOD))
        return False

    def __init__(self, env: VecEnv) -> None:
        super().__init__(env)
        inner = env.unwrapped
        self._methods: list[Callable[[], Any]] | None = None
        # looking for the method through all wrappers at every step may take longer than the method
        if isinstance(inner, DummyVecEnv) and type(inner).env_method is DummyVecEnv.env_method:
            self._envs = inner.envs
            self._methods = [one.get_wrapper_attr(METHOD) for one in inner.envs]

    def _ask(self, observations: Any) -> Any:
        if self._methods is None:
            return self.env.env_method(METHOD)
        return [method() for method in self._methods]

    def explain(self, error: Exception, actions: np.ndarray) -> None:
        """See :meth:`EnvMaskSource.explain`."""
        super().explain(error, actions)
        if self._methods is None:  # a worker that raised an error has ended
            return
        frames = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
        for env, (one, method) in enumerate(zip(self._envs, self._methods, strict=True)):
            if any(one is owner for owner in frames):
                now = self._layout.read([method()], 1, lambda _, env=env: self._owner(env))  # type: ignore[misc]
                if len(self._layout.forbidden(now, actions[env : env + 1])):
                    raise ValueError(
                        f"{self._owner(env)} allowed the action {np.asarray(actions[env]).tolist()}, and in the step the "
                        f"environment forbids it ({error}): `{METHOD}` must not change before the step"
                    ) from error


class OfInfo(EnvMaskSource):
    """The key ``action_mask`` or ``action_masks`` of the infos that ``reset`` and ``step`` return."""

    @classmethod
    def suits(cls, env: VecEnv) -> bool:
        """See :meth:`EnvMaskSource.suits`."""
        infos = env.unwrapped.reset_infos
        return bool(infos) and _key_in(infos[0]) is not None

    def reset(self) -> None:
        """See :meth:`EnvMaskSource.reset`."""
        self._infos = list(self.env.unwrapped.reset_infos)
        self._key = _key_in(self._infos[0]) if self._infos else None

    def observe(self, infos: Sequence[dict[str, Any]], dones: np.ndarray) -> None:
        """See :meth:`EnvMaskSource.observe`."""
        super().observe(infos, dones)
        self._infos = list(infos)
        if np.count_nonzero(dones):  # the info of an ended episode belongs to its last state
            first = self.env.unwrapped.reset_infos
            for i in np.flatnonzero(dones).tolist():
                self._infos[i] = first[i]

    def get_state(self) -> Any:
        """See :meth:`EnvMaskSource.get_state`."""
        return [np.array(mask) for mask in self._ask(None)]

    def set_state(self, state: Any) -> None:
        """See :meth:`EnvMaskSource.set_state`."""
        assert self._key is not None
        self._infos = [{self._key: mask} for mask in state]

    def _ask(self, observations: Any) -> Any:
        try:
            return [info[self._key] for info in self._infos]  # type: ignore[index]
        except KeyError:
            env = next(i for i, info in enumerate(self._infos) if self._key not in info)
            raise ValueError(f"{self._owner(env)} is missing: its info has no key {self._key!r}") from None


class OfObservation(EnvMaskSource):
    """
    The key ``action_mask`` or ``action_masks`` of a Dict observation.

    ``VecNormalize`` may normalise it for the policy like any other key; the mask is read before.
    """

    @classmethod
    def suits(cls, env: VecEnv) -> bool:
        """See :meth:`EnvMaskSource.suits`."""
        return isinstance(env.observation_space, spaces.Dict) and _key_in(env.observation_space.spaces) is not None

    def reset(self) -> None:
        """See :meth:`EnvMaskSource.reset`."""
        assert isinstance(self.env.observation_space, spaces.Dict)
        self._key = _key_in(self.env.observation_space.spaces)
        self._normalizer = unwrap_vec_normalize(self.env)

    def _ask(self, observations: Any) -> Any:
        if self._normalizer is not None:
            observations = self._normalizer.old_obs
        return observations[self._key]


SOURCES: dict[str, type[EnvMaskSource]] = {
    "vec_env": OfVecEnv,
    "env_method": OfMethod,
    "info": OfInfo,
    "observation": OfObservation,
}
"""The sources of action masks by name, in the order in which they are looked for."""


def find_mask_source(env: VecEnv, name: str = "auto") -> EnvMaskSource:
    """
    Find the source of the action masks.

    :param env: the environments, which have just been reset
    :param name: a name in :data:`SOURCES`; "auto": the first of them where there are masks
    :return: the source
    :raises ValueError: if there are no masks there
    """
    for candidate in SOURCES if name == "auto" else (name,):
        if SOURCES[candidate].suits(env):
            return SOURCES[candidate](env)
    keys = " or ".join(map(repr, KEYS))
    elsewhere = next((other for other in SOURCES if name != "auto" and SOURCES[other].suits(env)), None)
    if elsewhere is not None:
        raise ValueError(f"there are no action masks (`mask_source` = {described(name)}): they are in {elsewhere!r}")
    raise ValueError(
        f"there are no action masks (`mask_source` = {described(name)}): neither the VecEnv nor its environments have a "
        f"method `{METHOD}`, and neither their infos nor a Dict observation have the key {keys}. Wrap the environment in "
        "sb3-contrib's ActionMasker, or call `learn` with `use_masking=False`"
    )


def _key_in(names: Any) -> str | None:
    return next((key for key in KEYS if key in names), None)
