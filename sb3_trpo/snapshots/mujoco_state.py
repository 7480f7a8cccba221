"""Save and restore a MuJoCo simulation: all arrays of its data and its model, byte for byte."""

from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

_SCALARS = (
    *("time", "flg_energypos", "flg_energyvel", "flg_subtreevel", "flg_rnepost"),
    *("nbody_awake", "ntree_awake", "nv_awake", "nparent_awake"),
)
"""Numbers in the data that are not arrays. MuJoCo 3 lacks some of them."""
_LARGE = ("tex_", "mesh_", "skin_", "bvh_", "oct_", "name", "path", "text", "vis", "stat")
"""Prefixes of arrays of the model that hold geometry, textures and names, which stay as they were compiled."""
_GAP = 64
"""Largest number of bytes between two arrays of one block of the model: MuJoCo aligns arrays to at most this."""


class MujocoState(NamedTuple):
    """
    Holds a state of a MuJoCo simulation.

    :param data: bytes of the arrays of ``MjData``: state, controls, and all results of the last step
    :param scalars: numbers of ``MjData`` that are not arrays
    :param energy: potential and kinetic energy, shape (2,)
    :param model: bytes of the arrays of ``MjModel``, block by block
    :param options: numbers of the model's options
    :param option_arrays: arrays of the model's options
    """

    data: np.ndarray
    scalars: tuple[Any, ...]
    energy: np.ndarray
    model: list[np.ndarray]
    options: tuple[Any, ...]
    option_arrays: list[np.ndarray]


class MujocoLayer:
    """
    Saves and restores the simulation of a ``MujocoEnv``.

    All arrays are saved, not only the integration state, because rewards read positions and forces that the last step left
    behind. The arrays lie side by side in one buffer of ``MjData`` and are copied together. MuJoCo computes contacts and
    constraint forces anew in its arena at every step; in a restored state they are empty until the next step.

    :param env: the environment
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._find_memory()

    def _find_memory(self) -> None:
        data, model = self._env.data, self._env.model
        if model.nplugin:
            raise ValueError("its model has MuJoCo plugins, whose state cannot be read")
        self._data, self._model = data, model
        start = data.qpos.ctypes.data
        in_buffer = [array for array in _arrays(data, ()) if start <= array.ctypes.data < start + data.nbuffer]
        (self._block,) = _blocks(in_buffer, gap=data.nbuffer)  # the whole buffer, including the gaps
        self._model_blocks = _blocks(_arrays(model, _LARGE), _GAP)
        self._sizes = [block.size for block in self._model_blocks]
        self._scalars = [name for name in _SCALARS if hasattr(data, name)]
        self._opt = model.opt
        values = {name: getattr(model.opt, name) for name in dir(model.opt) if not name.startswith("_")}
        self._options = [name for name, value in values.items() if isinstance(value, (int, float))]
        self._read_options = attrgetter(*self._options)
        self._option_arrays = [value for value in values.values() if isinstance(value, np.ndarray)]

    def get(self) -> MujocoState:
        """
        Save the simulation.

        :return: state of the simulation
        """
        data, model = self._env.data, self._env.model
        if data is not self._data or model is not self._model:  # the environment has loaded another model
            self._find_memory()
        return MujocoState(
            data=self._block.copy(),
            scalars=tuple(getattr(data, name) for name in self._scalars),  # before MuJoCo 3.4, the time alone
            energy=data.energy.copy(),
            model=[block.copy() for block in self._model_blocks],
            options=self._read_options(self._opt),
            option_arrays=[array.copy() for array in self._option_arrays],
        )

    def set(self, state: MujocoState) -> None:
        """
        Restore the simulation.

        :param state: a result of :meth:`get`, of this environment or of a copy in another process
        :raises ValueError: if the state belongs to another model
        """
        import mujoco  # type: ignore[import-untyped]

        data, model = self._env.data, self._env.model
        if data is not self._data or model is not self._model:
            self._find_memory()
        if [self._block.size, *self._sizes] != [state.data.size, *map(len, state.model)]:
            raise ValueError(f"`state` must belong to the MuJoCo model of {type(self._env).__qualname__}, not to another")
        mujoco.mj_resetData(model, data)  # empties the arena, whose contents belong to another state
        self._block[:] = state.data
        for block, part in zip(self._model_blocks, state.model, strict=True):
            block[:] = part
        for name, value in zip(self._scalars, state.scalars, strict=True):
            setattr(data, name, value)
        data.energy[:] = state.energy
        self._set_options(state)

    def _set_options(self, state: MujocoState) -> None:
        if self._read_options(self._opt) != state.options:
            for name, value in zip(self._options, state.options, strict=True):
                setattr(self._opt, name, value)
        for array, part in zip(self._option_arrays, state.option_arrays, strict=True):
            array[:] = part


def _arrays(owner: Any, without: tuple[str, ...]) -> list[np.ndarray]:
    names = [name for name in dir(owner) if not name.startswith(("_", *without))]
    values = [getattr(owner, name) for name in names]
    return [value for value in values if isinstance(value, np.ndarray) and value.size]


def _blocks(arrays: list[np.ndarray], gap: int) -> list[np.ndarray]:
    """View the memory of arrays as bytes, joined where arrays lie side by side."""
    blocks: list[tuple[np.ndarray, int, int]] = []
    for array in sorted(arrays, key=lambda array: array.ctypes.data):
        start, end = array.ctypes.data, array.ctypes.data + array.nbytes
        if blocks and start - blocks[-1][2] <= gap:
            first, begin, last = blocks[-1]
            blocks[-1] = first, begin, max(end, last)
        else:
            blocks.append((array, start, end))
    return [
        np.lib.stride_tricks.as_strided(first.reshape(-1).view(np.uint8), (end - begin,), (1,)) for first, begin, end in blocks
    ]
