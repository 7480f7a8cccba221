"""Plain data is rebuilt from recipes, and nothing else is."""

import collections
import pickle
import sys
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_trpo.reading.pickles import NotRebuiltError, read_pickle
from sb3_trpo.reading.rebuild import load_pickle, unknown_calls
from tests.reading.payloads import Evil

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(12)[::2],
    np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),  # neither C nor Fortran order
    np.zeros((0, 3)),
    np.array(2.5),
    np.array([True, False]),
    np.arange(3, dtype=">i4"),
    np.array(["a", "bc"]),
    np.array([1 + 2j]),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays(array: np.ndarray, protocol: int) -> None:
    loaded = load_pickle(pickle.dumps(array, protocol))
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(loaded, array)
    assert loaded.flags.writeable
    assert loaded.flags.f_contiguous == array.copy(order="K").flags.f_contiguous


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("number", [np.float32(1.5), np.int64(-3), np.bool_(True), np.float64("nan"), np.uint8(255)])
def test_numbers(number: Any, protocol: int) -> None:
    loaded = load_pickle(pickle.dumps(number, protocol))
    assert type(loaded) is type(number)
    np.testing.assert_equal(loaded, number)


@pytest.mark.parametrize("name", ["PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_generators_go_on_with_the_same_numbers(name: str, protocol: int) -> None:
    generator = np.random.Generator(getattr(np.random, name)(3))
    generator.random(5)
    loaded = load_pickle(pickle.dumps(generator, protocol))
    assert loaded.random(3).tolist() == generator.random(3).tolist()


@pytest.mark.parametrize(
    "tensor",
    [
        th.arange(6.0).reshape(2, 3),
        th.arange(6.0).reshape(2, 3).T,
        th.arange(10)[2:8:2],
        th.zeros(0),
        th.tensor(3.0, dtype=th.float64),
        th.ones(2, requires_grad=True),
    ],
)
def test_tensors(tensor: th.Tensor) -> None:
    loaded = load_pickle(pickle.dumps(tensor))
    assert (loaded.dtype, loaded.requires_grad) == (tensor.dtype, tensor.requires_grad)
    assert th.equal(loaded, tensor)


SPACES: list[spaces.Space[Any]] = [
    spaces.Box(-1.0, np.inf, (3,)),
    spaces.Box(0, 255, (1, 20, 20), np.uint8),
    spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, 3.0]), dtype=np.float64),
    spaces.Discrete(3, start=2),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict({"x": spaces.Box(0.0, 1.0, (1,))})}),
    spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)]),
]


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces(space: spaces.Space[Any], seeded: bool) -> None:
    if seeded:
        space.seed(1)
    loaded = load_pickle(pickle.dumps(space))
    assert loaded == space
    assert (type(loaded), repr(loaded), loaded.dtype, loaded.shape) == (type(space), repr(space), space.dtype, space.shape)
    assert vars(loaded).keys() == vars(space).keys()
    if seeded:
        np.testing.assert_equal(loaded.sample(), space.sample())
    assert loaded.contains(space.sample())


def test_spaces_of_gym_become_gymnasiums() -> None:
    content = pickle.dumps(spaces.Discrete(3), 2).replace(b"cgymnasium.spaces.discrete", b"cgym.spaces.discrete")
    assert b"gymnasium" not in content
    assert load_pickle(content) == spaces.Discrete(3)


def test_containers_and_schedules() -> None:
    values = [
        collections.deque([1, 2], 3),
        collections.deque(),
        collections.OrderedDict(a=1, b=collections.OrderedDict()),
        {"n": [np.float32(1)], "t": (1, (2,))},
        ConstantSchedule(0.1),
        LinearSchedule(0.1, 0.0, 0.5),
        FloatSchedule(LinearSchedule(0.1, 0.0, 0.5)),
        th.nn.Tanh,
        np.float32,
    ]
    loaded = load_pickle(cloudpickle.dumps(values))
    assert [repr(value) for value in loaded] == [repr(value) for value in values]
    assert loaded[0].maxlen == 3
    statistics = RunningMeanStd(shape=(2,))
    statistics.update(np.ones((3, 2)))
    again = load_pickle(pickle.dumps(statistics))
    assert (again.mean.tolist(), again.count) == (statistics.mean.tolist(), statistics.count)


@pytest.mark.parametrize("imported", [False, True])
def test_rl_zoos_schedule(imported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from rl_zoo3.utils import SimpleLinearSchedule

    content = pickle.dumps(FloatSchedule(SimpleLinearSchedule(0.2)))
    if not imported:
        monkeypatch.delitem(sys.modules, "rl_zoo3.utils")
    loaded = load_pickle(content)
    assert isinstance(loaded.value_schedule, SimpleLinearSchedule if imported else LinearSchedule)
    assert loaded(0.25) == pytest.approx(0.05)


def test_what_is_shared_stays_shared() -> None:
    array = np.zeros(2)
    loaded = load_pickle(pickle.dumps([array, {"a": array}]))
    assert loaded[0] is loaded[1]["a"]


def state_of(value: Any, **state: Any) -> bytes:
    """A pickle that makes an object as usual, and sets other attributes."""
    vars(value).update(state)
    return pickle.dumps(value, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (state_of(spaces.Discrete(2), sample=th.nn.ReLU), "a Discrete has the attribute 'sample'"),
        (state_of(spaces.Box(0.0, 1.0, (2,)), __class__=1), "a Box has the attribute '__class__'"),
        (state_of(spaces.Discrete(2), n="2"), "the attribute 'n' of a Discrete is a str"),
        (state_of(spaces.Box(0.0, 1.0, (2,)), low=np.zeros(3)), "the attribute 'low' of a Box has another shape"),
        (state_of(spaces.Box(0.0, 1.0, (2,)), dtype=th.nn.ReLU), "a Box is of objects"),
        (state_of(spaces.Dict({"a": spaces.Discrete(2)}), spaces={"a": 3}), "a Dict has parts that are no spaces"),
        (state_of(ConstantSchedule(1.0), val="1"), "the attribute 'val' of a .*ConstantSchedule is a str"),
        (state_of(ConstantSchedule(1.0), other=1), "has other attributes than usual: 'other'"),
        (state_of(FloatSchedule(1.0), value_schedule=th.nn.ReLU), "the attribute 'value_schedule' of a .* is a type"),
        (pickle.dumps(np.array([None, 1], dtype=object)), "it has an array of type 'O8'"),
        (pickle.dumps(np.zeros(2, dtype=[("a", "f4")])), "it has an array of type 'V4'"),
        (pickle.dumps(Evil(bytearray, 10**12)), "builtins.bytearray has other arguments than usual"),
        (pickle.dumps(th.nn.Linear), "it names torch.nn.modules.linear.Linear, which is none of the known classes"),
        (pickle.dumps(pickle.loads), "it names _pickle.loads, which is none of the known classes"),
        (pickle.dumps(read_pickle), "it names sb3_trpo.reading.pickles.read_pickle, which is none of the known classes"),
        (b"csb3_trpo.reading.pickles\npickletools\n.", "none of the known classes"),
        (b"csb3_trpo.algorithms.trpo\nTRPO\n.", "none of the known classes"),
        (b"csb3_trpo.policies\nAny\n.", "it needs sb3_trpo.policies.Any, which is not installed here"),
        (b"csb3_trpo.policies\nth\n.", "it needs|none of the known classes"),
        (b"cnumpy\nload\n.", "none of the known classes"),
        (b"cstable_baselines3.common.policies\nActorCriticPolicy.load\n.", "none of the known classes"),
        (b"c__builtin__\ngetattr\n(cstable_baselines3.common.policies\nBasePolicy\nS'load'\ntR.", "it looks up an attribute"),
        (b"]p0\ng0\na.", "it contains itself"),
        (b"]" + b"\x85" * 100_000 + b".", "nested too deeply"),
        (b"Pabc\n.", "it refers to something outside the file"),
        (b"ctorch.nn.modules.activation\nTanh\n)R.", r"it would call torch\.nn\.modules\.activation\.Tanh"),
        (b"ccollections\ndeque\n)R}b.", None),
        (b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(K\x01e.", "damaged|adds elements"),
    ],
)
def test_anything_else_is_refused(content: bytes, message: str | None) -> None:
    if message is None:
        assert load_pickle(content) == collections.deque()
        return
    with pytest.raises(NotRebuiltError, match=message):
        load_pickle(content)


@pytest.mark.parametrize("shape", [(3,), (-1,), (2.0,), "2", (2, 10**12), (True, 2)])
def test_arrays_have_as_many_bytes_as_their_shape_says(shape: Any) -> None:
    frombuffer: Any = np.zeros(2).__reduce_ex__(5)[0]
    with pytest.raises(NotRebuiltError):
        load_pickle(pickle.dumps(Evil(frombuffer, b"\0" * 16, np.dtype("f8"), shape, "C")))


@pytest.mark.parametrize(
    "layout", [(0, (3,), (1,)), (1, (2,), (1,)), (-1, (1,), (1,)), (0, (2,), (5,)), (0, (1,), (1, 1)), (0, (9,), (0,))]
)
def test_tensors_stay_within_their_numbers(layout: tuple[Any, ...]) -> None:
    tensor: Any = th.ones(2)
    rebuild, args = tensor.__reduce_ex__(2)
    with pytest.raises(NotRebuiltError, match="it has a tensor"):
        load_pickle(pickle.dumps(Evil(rebuild, args[0], *layout, False, collections.OrderedDict())))


def test_names_are_safe_to_print() -> None:
    for content in (b"c\x1b[2Ja\nb\n.", b"c" + b"a" * 10_000 + b"\nb\n."):
        with pytest.raises(NotRebuiltError) as error:
            load_pickle(content)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 300


def test_what_numpy_refuses_is_named_as_damaged() -> None:
    with pytest.raises(NotRebuiltError, match=r"it is damaged \(ValueError: "):
        load_pickle(pickle.dumps(Evil(collections.deque, (), -1)))


def test_an_endless_text_is_not_written() -> None:
    """Each level holds the level below twice: its text has 2**200 parts."""
    nested = b"K\x01" + b"2\x86" * 200
    make, state = b"ccloudpickle.cloudpickle\n_make_function\n)R", b"(}}(S'__module__'\n" + nested + b"S'__qualname__'\n"
    with pytest.raises(NotRebuiltError, match="the code of the function without a name"):
        load_pickle(make + state + nested + b"utb.")
    with pytest.raises(NotRebuiltError, match="the result of another call"):
        load_pickle(b"ccloudpickle.cloudpickle\n_builtin_type\n(" + nested + b"tR)R.")


@pytest.mark.parametrize("fields", [b"](h%sh%se\x94", b"}(K\x00h%sK\x01h%su\x94", b"h%sh%s\x86\x94"])
def test_a_value_of_endless_parts_is_refused(fields: bytes) -> None:
    """Each container holds the one before twice, so that a ``repr`` of the last would take for ever."""
    content = b"\x80\x04]\x94" + b"".join(fields % (bytes([i]), bytes([i])) for i in range(100)) + b"."
    with pytest.raises(NotRebuiltError, match="it repeats its parts so often"):
        load_pickle(content)
    assert load_pickle(pickle.dumps([[[1, "a"]] * 1000] * 1000))[0][0] == [1, "a"]


def test_tensors_with_hooks_are_refused() -> None:
    tensor: Any = th.ones(2)
    rebuild, args = tensor.__reduce_ex__(2)
    with pytest.raises(NotRebuiltError, match="a tensor with hooks"):
        load_pickle(pickle.dumps(Evil(rebuild, *args[:5], collections.OrderedDict(a=1))))


def test_a_disguised_function_gives_only_its_number() -> None:
    """The code of a function that claims to be SB3's is not used, and other closures are refused."""
    val = 0.25

    def func(_: float) -> float:
        raise AssertionError(val)

    func.__module__, func.__qualname__ = "stable_baselines3.common.utils", "constant_fn.<locals>.func"
    content = cloudpickle.dumps(func)
    loaded = load_pickle(content)
    assert type(loaded) is ConstantSchedule
    assert loaded(0.5) == 0.25
    assert "cloudpickle.cloudpickle._make_function" in unknown_calls(read_pickle(content))
    val = "text"  # type: ignore[assignment]
    with pytest.raises(NotRebuiltError, match="is not made of numbers"):
        load_pickle(cloudpickle.dumps(func))


def test_unknown_calls_of_good_values_are_none() -> None:
    for value in (*SPACES, *ARRAYS, th.ones(2), collections.deque([1]), FloatSchedule(0.1), th.nn.Tanh):
        assert unknown_calls(read_pickle(cloudpickle.dumps(value))) == []
    assert unknown_calls(read_pickle(pickle.dumps([Evil(eval, "1"), Evil(print)]))) == ["builtins.eval", "builtins.print"]
