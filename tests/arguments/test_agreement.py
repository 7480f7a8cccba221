"""Processes that run different trainings are refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import TRPO
from sb3_trpo.arguments.agreement import describe_training, refuse_differences, text_of
from sb3_trpo.arguments.hyperparameters import hyperparameter_names
from tests.toy_envs import RandomEnv


def describe(**kwargs: Any) -> dict[str, str]:
    env = VecNormalize(DummyVecEnv([RandomEnv]), gamma=kwargs.pop("norm_gamma", 0.99))
    model = TRPO("MlpPolicy", env, **{"n_steps": 16, "batch_size": 16, **kwargs})
    return describe_training(model, hyperparameter_names(), model.get_vec_normalize_env())


def test_the_same_training_is_described_alike() -> None:
    refuse_differences([describe(target_kl="lin_0.02"), describe(target_kl="lin_0.02")])


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("gamma", {"gamma": 0.9}, {"gamma": 0.99}),
        ("VecNormalize", {"norm_gamma": 0.9}, {}),
        ("policy", {}, {"policy_kwargs": {"net_arch": [16]}}),
        ("n_steps", {"n_steps": 32}, {}),
    ],
)
def test_the_first_difference_is_named(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"all processes must have the same {name}: rank 0 has .*, rank 2 has ") as raised:
        refuse_differences([describe(**ours), describe(**ours), describe(**theirs)])
    assert len(str(raised.value)) < 300


def test_other_code_is_refused() -> None:
    with pytest.raises(ValueError, match="the same code of sb3_trpo: rank 0 has "):
        refuse_differences([describe(), describe() | {"code of sb3_trpo": "other"}])


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (lambda p: 0.1 * p, lambda p: 0.1 * p, True),
        (lambda p: 0.1 * p, lambda p: 0.2 * p, False),
        ({"a": [1, np.float32]}, {"a": [1, np.float32]}, True),
        ({"a": [1, np.float32]}, {"a": [1, np.float64]}, False),
        (partial(int, base=2), partial(int, base=3), False),
        (spaces.Discrete(3), spaces.Discrete(3, start=1), False),
    ],
)
def test_texts_are_equal_where_values_are(ours: Any, theirs: Any, same: bool) -> None:
    def unnamed(value: Any) -> str:
        return text_of(value).replace("<lambda>", "")

    assert (unnamed(ours) == unnamed(theirs)) is same


def linear(first: float) -> Any:
    return lambda progress, last=0.0: last + first * progress


def test_schedules_are_compared_with_the_numbers_that_they_are_made_of() -> None:
    assert text_of(linear(0.1)) == text_of(linear(0.1))
    assert text_of(linear(0.1)) != text_of(linear(0.2))
    assert text_of(lambda p, k=1: p) != text_of(lambda p, k=2: p)


def test_the_order_of_a_set_does_not_count() -> None:
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other)  # as sets of strings differ between processes
    assert text_of({"names": one}) == text_of({"names": other})
    first, second = (text_of(eval(f"lambda p: p in {numbers}")) for numbers in ("{0, 8}", "{8, 0}"))
    assert first == second


def test_texts_have_no_addresses() -> None:
    class Thing:
        pass

    assert text_of(Thing()) == text_of(Thing())
