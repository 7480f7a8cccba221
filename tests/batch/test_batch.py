"""The batch holds the rollout's transitions, rows together, without copies, and without touching NumPy's generator."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.from_buffer import keeps_sb3_layout, read_batch
from sb3_trpo.batch.states import States, map_observations
from sb3_trpo.batch.subsets import every_kth, minibatches
from sb3_trpo.batch.whole import Whole
from tests.helpers import generator_states

N_STEPS = 6
VECTOR = spaces.Box(-1e4, 1e4, (2,), dtype=np.float32)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": VECTOR,
    "image": spaces.Box(0, 255, (1, 2, 2), dtype=np.uint8),
    "dict": spaces.Dict({"vector": VECTOR, "image": spaces.Box(0, 255, (1, 2, 2), dtype=np.uint8)}),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1e4, 1e4, (2,), dtype=np.float32),
    "discrete": spaces.Discrete(1000),
    "multi_discrete": spaces.MultiDiscrete([1000, 1000]),
}


def label(step: int, env: int) -> int:
    """A number that names a transition; every quantity of it is made from this."""
    return 10 * step + env


def fill(buffer: RolloutBuffer) -> RolloutBuffer:
    for step in range(N_STEPS):
        labels = np.array([label(step, env) for env in range(buffer.n_envs)])
        vector = np.stack([labels, labels + 0.5], axis=1)
        image = np.broadcast_to(labels[:, None, None, None], (buffer.n_envs, 1, 2, 2)).astype(np.uint8)
        obs = {"vector": vector, "image": image}
        shape = buffer.observation_space.shape
        buffer.add(
            obs if isinstance(buffer, DictRolloutBuffer) else vector if shape == (2,) else image,  # type: ignore[arg-type]
            np.repeat(labels[:, None], buffer.action_dim, axis=1),
            labels,
            np.zeros(buffer.n_envs),
            th.from_numpy(labels + 0.25),
            -th.from_numpy(labels).float(),
        )
    labels = np.array([[label(step, env) for env in range(buffer.n_envs)] for step in range(N_STEPS)])
    buffer.advantages[:] = labels + 0.125
    buffer.returns[:] = labels + 0.75
    return buffer


def make_buffer(observations: str, actions: str, n_envs: int) -> RolloutBuffer:
    cls = DictRolloutBuffer if observations == "dict" else RolloutBuffer
    return fill(cls(N_STEPS, OBSERVATIONS[observations], ACTIONS[actions], "cpu", n_envs=n_envs))  # type: ignore[arg-type]


def read(buffer: RolloutBuffer, action_space: spaces.Space[Any]) -> Batch:
    return read_batch(buffer, action_space, lambda rollout: {"observations": rollout.observations})


def labels_of(batch: Batch) -> list[int]:
    """Identify the transitions of a batch, and check that all quantities of a row belong to the same one."""
    labels = (batch.advantages - 0.125).double()
    assert th.equal(batch.returns.double(), labels + 0.75)
    assert th.equal(batch.old_log_prob.double(), -labels)
    assert th.equal(batch.actions.double().view(len(batch), -1)[:, 0], labels)
    observations = (
        batch.states.observations if isinstance(batch.states.observations, dict) else {"only": batch.states.observations}
    )
    for value in observations.values():
        assert len(value) == len(batch)
        assert th.equal(value.reshape(len(batch), -1)[:, 0].double(), labels)
    return [int(x) for x in labels]


TIME_MAJOR = {n: [label(step, env) for step in range(N_STEPS) for env in range(n)] for n in (1, 3)}


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_rows_are_the_transitions_in_order_of_time(observations: str, actions: str, n_envs: int) -> None:
    batch = read(make_buffer(observations, actions, n_envs), ACTIONS[actions])
    assert labels_of(batch) == TIME_MAJOR[n_envs]


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_rows_are_the_same_transitions_after_get(observations: str, actions: str, n_envs: int) -> None:
    buffer = make_buffer(observations, actions, n_envs)
    next(iter(buffer.get(2)))  # flattens the buffer's arrays, environment by environment
    assert sorted(labels_of(read(buffer, ACTIONS[actions]))) == TIME_MAJOR[n_envs]


def test_shapes_and_types() -> None:
    batch = read(make_buffer("image", "discrete", 3), ACTIONS["discrete"])
    assert isinstance(batch.states.observations, th.Tensor)
    assert (batch.states.observations.dtype, batch.states.observations.shape) == (th.uint8, (18, 1, 2, 2))
    assert (batch.actions.dtype, batch.actions.shape) == (th.int64, (18,))
    batch = read(make_buffer("vector", "multi_discrete", 3), ACTIONS["multi_discrete"])
    assert (batch.actions.dtype, batch.actions.shape) == (th.float32, (18, 2))
    for tensor in (batch.old_log_prob, batch.advantages, batch.returns):
        assert (tensor.dtype, tensor.shape) == (th.float32, (18,))
    assert len(batch) == 18


@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_sb3s_buffers_are_read_in_place(observations: str) -> None:
    buffer = make_buffer(observations, "box", 3)
    batch = read(buffer, ACTIONS["box"])
    pairs = [
        (batch.actions, buffer.actions),
        (batch.old_log_prob, buffer.log_probs),
        (batch.advantages, buffer.advantages),
        (batch.returns, buffer.returns),
    ]
    if isinstance(batch.states.observations, dict):
        pairs += [(batch.states.observations[key], buffer.observations[key]) for key in ("vector", "image")]
    else:
        pairs.append((batch.states.observations, buffer.observations))
    assert all(np.shares_memory(tensor.numpy(), array) for tensor, array in pairs)


@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_the_order_is_the_same_after_get(observations: str) -> None:
    buffer = make_buffer(observations, "box", 3)
    before = labels_of(read(buffer, ACTIONS["box"]))
    next(iter(buffer.get(2)))
    assert labels_of(read(buffer, ACTIONS["box"])) == before


@pytest.mark.parametrize("observations", ["vector", "dict"])
def test_reading_draws_nothing(observations: str) -> None:
    buffer = make_buffer(observations, "box", 3)
    before = generator_states()
    read(buffer, ACTIONS["box"])
    assert generator_states() == before


class Reversed(RolloutBuffer):
    """A buffer with a custom ``get``, which yields the rows backwards and counts its calls."""

    asked: int = 0

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        self.asked += 1
        assert batch_size is None
        np.random.permutation(3)  # noqa: NPY002
        samples = next(super().get(None))
        order = samples.advantages.argsort(descending=True)
        yield RolloutBufferSamples(*(part[order] for part in samples))


def test_a_custom_get_is_called_once_and_numpys_state_stays() -> None:
    buffer = Reversed(N_STEPS, VECTOR, ACTIONS["discrete"], "cpu", n_envs=3)
    fill(buffer)
    np.random.seed(3)  # noqa: NPY002
    before = generator_states()
    batch = read(buffer, ACTIONS["discrete"])
    assert buffer.asked == 1
    assert generator_states() == before
    assert labels_of(batch) == TIME_MAJOR[3][::-1]
    assert (batch.actions.dtype, batch.actions.shape) == (th.int64, (18,))


class Sized(RolloutBuffer):
    """A buffer whose ``get`` was written for PPO, which always passes a size."""

    def get(self, batch_size: int) -> Generator[RolloutBufferSamples, None, None]:  # type: ignore[override]
        yield next(super().get(int(batch_size)))


class SizedByDefault(RolloutBuffer):
    """A buffer whose ``get`` gives mini-batches by default."""

    def get(self, batch_size: int = 4) -> Generator[RolloutBufferSamples, None, None]:  # type: ignore[override]
        yield next(super().get(int(batch_size)))


@pytest.mark.parametrize("buffer_class", [Sized, SizedByDefault])
def test_a_buffer_that_needs_a_size_is_asked_for_everything(buffer_class: type[RolloutBuffer]) -> None:
    buffer = buffer_class(N_STEPS, VECTOR, ACTIONS["discrete"], "cpu", n_envs=3)
    fill(buffer)
    assert sorted(labels_of(read(buffer, ACTIONS["discrete"]))) == sorted(TIME_MAJOR[3])


class OwnSamples(RolloutBuffer):
    """A buffer that scales the advantages of its samples."""

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> RolloutBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(advantages=2.0 * samples.advantages)


class OwnReturns(RolloutBuffer):
    """A buffer that computes other returns, but is read as SB3's."""

    def compute_returns_and_advantage(self, last_values: th.Tensor, dones: np.ndarray) -> None:
        super().compute_returns_and_advantage(last_values, dones)


def test_layout_is_sb3s_unless_samples_are_made_otherwise() -> None:
    assert keeps_sb3_layout(make_buffer("vector", "box", 1))
    assert keeps_sb3_layout(make_buffer("dict", "box", 1))
    assert keeps_sb3_layout(OwnReturns(N_STEPS, VECTOR, VECTOR))
    assert not keeps_sb3_layout(Reversed(N_STEPS, VECTOR, VECTOR))
    assert not keeps_sb3_layout(OwnSamples(N_STEPS, VECTOR, VECTOR))


class Doubled(RolloutBuffer):
    """A buffer that scales whatever it gives."""

    def to_torch(self, array: np.ndarray, copy: bool = True) -> th.Tensor:
        return 2.0 * super().to_torch(array, copy)


@pytest.mark.parametrize("name", ["get", "_get_samples", "to_torch", "swap_and_flatten"])
def test_a_reading_method_that_was_replaced_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = make_buffer("vector", "box", 1)
    setattr(buffer, name, getattr(buffer, name))
    assert not keeps_sb3_layout(buffer)
    other = make_buffer("vector", "box", 1)
    owner = next(cls for cls in RolloutBuffer.__mro__ if name in vars(cls))
    before = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: before(*args, **kwargs))
    assert not keeps_sb3_layout(other)


def test_a_custom_conversion_to_torch_is_used() -> None:
    buffer = fill(Doubled(N_STEPS, VECTOR, ACTIONS["box"], "cpu"))
    assert not keeps_sb3_layout(buffer)
    assert sorted(read(buffer, ACTIONS["box"]).advantages.tolist()) == [2.0 * (name + 0.125) for name in TIME_MAJOR[1]]


def test_custom_samples_are_read_through_get() -> None:
    buffer = fill(OwnSamples(N_STEPS, VECTOR, ACTIONS["box"], "cpu"))
    batch = read(buffer, ACTIONS["box"])
    assert sorted(batch.advantages.tolist()) == [2.0 * (name + 0.125) for name in TIME_MAJOR[1]]


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 6, 18, 100])
@pytest.mark.parametrize("observations", ["vector", "dict"])
def test_minibatches_are_those_of_get(observations: str, batch_size: int, n_envs: int) -> None:
    buffer = make_buffer(observations, "box", n_envs)
    batch = read(buffer, ACTIONS["box"])
    np.random.seed(3)  # noqa: NPY002
    drawn = [th.as_tensor(units) for _ in range(2) for units, _ in minibatches(Whole.of(batch, n_envs), batch_size)]
    ours = [labels_of(batch.take(units)) for units in drawn]
    state = generator_states()
    np.random.seed(3)  # noqa: NPY002
    theirs = [(samples.advantages - 0.125).tolist() for _ in range(2) for samples in buffer.get(batch_size)]
    assert ours == theirs
    assert generator_states() == state


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 18])
def test_every_kth_goes_through_all_environments(k: int, n_envs: int) -> None:
    batch = read(make_buffer("vector", "box", n_envs), ACTIONS["box"])
    by_environment = [label(step, env) for env in range(n_envs) for step in range(N_STEPS)]
    thinned = labels_of(batch.take(th.from_numpy(every_kth(Whole.of(batch, n_envs), k))))
    assert thinned == (by_environment[::k] if k > 1 else TIME_MAJOR[n_envs])
    if k <= N_STEPS:
        assert {name % 10 for name in thinned} == set(range(n_envs))


@pytest.mark.parametrize(("size", "n_envs"), [(10, 4), (3, 4)])
def test_every_kth_of_a_buffer_of_another_size(size: int, n_envs: int) -> None:
    zeros = th.zeros(size)
    batch = Batch(States(zeros), zeros, zeros, zeros, zeros)
    assert every_kth(Whole.of(batch, n_envs), 2).tolist() == list(range(0, size, 2))


@pytest.mark.parametrize("size", [1, 4, 17, 18, 100])
def test_chunks_are_consecutive_and_complete(size: int) -> None:
    batch = read(make_buffer("dict", "box", 3), ACTIONS["box"])
    chunks = list(batch.chunks(size))
    assert [name for chunk in chunks for name in labels_of(chunk)] == TIME_MAJOR[3]
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= size


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_of_some_positions(size: int) -> None:
    batch = read(make_buffer("dict", "box", 3), ACTIONS["box"])
    chunks = list(batch.chunks(size, th.tensor([4, 0, 7])))
    assert [name for chunk in chunks for name in labels_of(chunk)] == [TIME_MAJOR[3][i] for i in (4, 0, 7)]
    assert all(len(chunk) <= size for chunk in chunks)


@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_take_picks_rows_of_everything(observations: str) -> None:
    batch = read(make_buffer(observations, "discrete", 3), ACTIONS["discrete"])
    assert labels_of(batch.take(th.tensor([4, 0, 4]))) == [TIME_MAJOR[3][4], 0, TIME_MAJOR[3][4]]
    assert labels_of(batch.take(slice(None, None, 5))) == TIME_MAJOR[3][::5]


def test_replacing_the_advantages_leaves_the_batch_unchanged() -> None:
    batch = read(make_buffer("vector", "box", 1), ACTIONS["box"])
    other = batch.with_advantages(th.zeros(len(batch)))
    assert not other.advantages.any()
    assert other.actions is batch.actions
    assert labels_of(batch) == TIME_MAJOR[1]


def test_map_observations_keeps_the_structure() -> None:
    assert map_observations(th.ones(2), lambda x: 2.0 * x).tolist() == [2.0, 2.0]  # type: ignore[union-attr]
    mapped = map_observations({"a": th.ones(1), "b": th.zeros(1)}, lambda x: x + 1.0)
    assert isinstance(mapped, dict)
    assert {key: value.item() for key, value in mapped.items()} == {"a": 2.0, "b": 1.0}
