"""Acts with a plain recurrent policy in NumPy, and computes the critic's values of a whole rollout in one pass."""

from collections.abc import Callable, Sequence

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_trpo.actor.packing import Memory, Sequences
from sb3_trpo.actor.plain_policy import PlainPolicy
from sb3_trpo.actor.plain_recurrent import PlainRecurrentPolicy
from sb3_trpo.actor.recurrent_network import RecurrentNetwork
from sb3_trpo.batch.states import Observations
from sb3_trpo.batch.whole import Share
from sb3_trpo.batch.windows import Windows
from sb3_trpo.policies.interface import MaskSource, Obs
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from sb3_trpo.rollout.bootstrap import numpy_values
from sb3_trpo.rollout.numpy_actor import NumpyActor
from sb3_trpo.rollout.recorders import DeferredRecorder


class RecurrentNumpyActor(NumpyActor):
    """
    Draws actions from a plain recurrent policy, whose memory it advances.

    :param plain: the policy
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    :param share: this worker's environments among all, for which the noise is drawn; None: it has all
    """

    memory: Memory
    """The actor's memory, each array of shape (n_envs, n_layers, H); set before the first step."""

    def evaluate(self, features: np.ndarray) -> np.ndarray:
        """
        Compute the output of the actor for one step, and advance the memory.

        :param features: the encoded observations, shape (n_envs, n_in)
        :return: shape (n_envs, n_out)
        """
        assert isinstance(self._layers, RecurrentNetwork)
        outputs, self.memory = self._layers.step(features, self.memory)
        return outputs


class RecurrentRecorder(DeferredRecorder):
    """
    Records a plain recurrent policy in SB3's own buffer.

    The critic's memory within the rollout is NaN for callbacks, because the critic is run at the end.

    :param interface: interface to the policy, which keeps the memory of the environments
    :param plain: the policy
    :param buffer: the buffer to fill
    :param gamma: discount factor
    :param n_steps: steps of the rollout
    :param n_envs: number of environments
    :param mask_source: the source of the action masks; None: all actions are possible
    :param share: this worker's environments among all; None: it has all
    """

    _actor: RecurrentNumpyActor

    def __init__(
        self,
        interface: RecurrentInterface,
        plain: PlainRecurrentPolicy,
        buffer: RolloutBuffer,
        gamma: float,
        n_steps: int,
        n_envs: int,
        mask_source: MaskSource | None = None,
        share: Share | None = None,
    ) -> None:
        super().__init__(plain, buffer, gamma, n_steps, n_envs, mask_source, share)
        self._interface = interface
        self._plain = plain
        self._network = plain.critic if isinstance(plain.critic, RecurrentNetwork) else None
        self._starts = np.zeros((n_steps, n_envs), dtype=bool)
        self._n_acted = 0

    def _make_actor(self, plain: PlainPolicy, n_steps: int, n_envs: int, share: Share | None) -> NumpyActor:
        return RecurrentNumpyActor(plain, n_steps, n_envs, share)

    def _make_critic(self, plain: PlainPolicy) -> Callable[[np.ndarray], np.ndarray]:
        return _no_values if isinstance(plain.critic, RecurrentNetwork) else numpy_values(plain)

    def act(self, obs: Obs, starts: np.ndarray, step: int) -> tuple[Observations, np.ndarray, th.Tensor, th.Tensor]:
        """See :meth:`~sb3_trpo.rollout.recorders.Recorder.act`."""
        begins = self._starts[step] = np.asarray(starts, dtype=bool)
        if step == 0:
            self._interface.first_memory = first = self._interface.memory_before(th.from_numpy(begins))
            self._actor.memory = self._plain.memory_of(_arrays(first), critic=False)
            n = len(self._actor.memory)
            self._unknown = tuple(th.full(part.shape, th.nan) for part in first[n:])
        elif begins.any():
            keep = ~begins[:, None, None]
            self._actor.memory = tuple(part * keep for part in self._actor.memory)
        result = super().act(obs, starts, step)
        self._n_acted = step + 1
        self._interface.memory = (*map(th.from_numpy, self._actor.memory), *self._unknown)
        return result

    def _run_critic(self, n_steps: int) -> np.ndarray:
        """Run the critic over the steps so far; keep its memory at the end of each window, and after the last step."""
        assert self._network is not None
        self._network.refresh()
        windows = Windows.of(th.from_numpy(self._starts[:n_steps]))
        first = self._plain.memory_of(self._interface.first_memory, critic=True)
        memory = _arrays([windows.memory(part) for part in first])
        observations = self._buffer.observations[:n_steps].reshape(-1, *self._buffer.obs_shape)
        rows = windows.rows.numpy()
        inputs = self._plain.encode(observations.take(rows, axis=0))
        outputs, self._memory_of_windows = self._network.run(Sequences(inputs, windows.lengths.numpy(), memory))
        values = np.empty(len(rows), dtype=np.float32)
        values[rows] = outputs[:, 0]
        ends = rows[np.cumsum(windows.lengths.numpy()) - 1]
        n_envs = self._buffer.n_envs
        self._window_at = {divmod(end, n_envs): window for window, end in enumerate(ends.tolist())}
        if self._unknown:
            last = [self._window_at[n_steps - 1, env] for env in range(n_envs)]
            after = (th.from_numpy(part[last]) for part in self._memory_of_windows)
            self._interface.memory = (*self._plain.memory_of(self._interface.memory, critic=False), *after)
        return values

    def _values(self, n_steps: int) -> np.ndarray:
        return super()._values(n_steps) if self._network is None else self._run_critic(n_steps)

    def _terminal_values(self) -> np.ndarray:
        if self._network is None:
            return super()._terminal_values()
        windows = [self._window_at[end] for end in self._timeouts]
        return self._step_critic(np.concatenate(self._terminal_obs), tuple(part[windows] for part in self._memory_of_windows))

    def _last_values(self, last_obs: np.ndarray, dones: np.ndarray) -> np.ndarray:
        if self._network is None:
            return super()._last_values(last_obs, dones)
        before = self._interface.memory_before(th.from_numpy(np.asarray(dones, dtype=bool)))
        memory = self._plain.memory_of(_arrays(before), critic=True)
        return self._step_critic(last_obs, memory)

    def _step_critic(self, observations: np.ndarray, memory: Memory) -> np.ndarray:
        assert self._network is not None
        return self._network.step(self._plain.encode(observations), memory)[0][:, 0]

    @np.errstate(all="ignore")
    def abandon(self) -> None:
        """See :meth:`~sb3_trpo.rollout.recorders.Recorder.abandon`. The critic's memory must not stay unknown."""
        if self._unknown:
            self._run_critic(self._n_acted)


def _arrays(memory: Sequence[th.Tensor]) -> Memory:
    return tuple(part.cpu().numpy() for part in memory)


def _no_values(observations: np.ndarray) -> np.ndarray:
    raise AssertionError("the critic has memory")
