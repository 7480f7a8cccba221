"""Every bad hyperparameter is refused by name, at construction and at load."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.utils import LinearSchedule

from sb3_trpo import TRPO
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.checks import described
from tests.toy_envs import RandomEnv

BAD = [
    ("n_steps", 0),
    ("n_steps", 8.0),
    ("n_steps", True),
    ("batch_size", 0),
    ("batch_size", -1),
    ("gamma", 1.1),
    ("gamma", float("nan")),
    ("gae_lambda", -0.1),
    ("cg_max_steps", 0),
    ("cg_damping", -1e-9),
    ("cg_damping", float("inf")),
    ("cg_tol", 1.0),
    ("line_search_shrinking_factor", 0.0),
    ("line_search_shrinking_factor", 1.0),
    ("line_search_max_iter", 0),
    ("line_search_accept_ratio", 1.5),
    ("n_critic_updates", -1),
    ("sub_sampling_factor", 0),
    ("sub_sampling_factor", 65),
    ("fisher_sample_fraction", 0.0),
    ("fisher_sample_fraction", 1.01),
    ("ent_coef", -0.1),
    ("ent_coef", float("inf")),
    ("ent_coef", "lin_-0.1"),
    ("ent_coef", None),
    ("max_grad_norm", 0.0),
    ("chunk_size", 0),
    ("chunk_size", 1.5),
    ("normalize_advantage", 1),
    ("use_sde", "False"),
    ("sde_sample_freq", 0),
    ("learning_rate", -1e-3),
    ("learning_rate", "fast"),
    ("target_kl", 0.0),
    ("target_kl", -1.0),
    ("target_kl", float("nan")),
    ("target_kl", "exp_0.1"),
    ("target_kl", "lin_x"),
    ("target_kl", None),
    ("rollout_buffer_class", dict),
    ("rollout_buffer_class", ReplayBuffer),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.zip"
    TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).save(path)
    return path


@pytest.mark.parametrize(("name", "value"), [*BAD, ("policy_kwargs", "dict(net_arch=[])"), ("stats_window_size", "100")])
def test_bad_value_is_refused_at_construction(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be .*, not ") as error:
        TRPO("MlpPolicy", RandomEnv(), **{"n_steps": 64, "batch_size": 16, name: value})
    assert described(value) in str(error.value)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_value_is_refused_at_load(saved: Path, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be .*, not "):
        TRPO.load(saved, RandomEnv(), **{name: value})


@pytest.mark.parametrize(("name", "value"), [pair for pair in BAD if pair[0] not in ("n_steps", "gamma", "gae_lambda")])
def test_bad_value_that_was_set_later_is_refused_before_anything_is_collected(saved: Path, name: str, value: Any) -> None:
    model = TRPO.load(saved, RandomEnv())
    setattr(model, name, value)
    with pytest.raises(ValueError, match=rf"`{name}` must be .*, not "):
        model.learn(64)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("name", ["target_kl", "ent_coef", "learning_rate"])
@pytest.mark.parametrize(
    ("last", "message"),
    [
        (-1.0, "must give finite numbers >= 0, not -1.0 at progress=0"),
        (float("nan"), "must give finite numbers >= 0, not nan"),
        (float("inf"), "must give finite numbers >= 0, not inf"),
        (None, "must map a number to a number"),
    ],
)
def test_bad_schedule_is_refused_at_construction_and_before_a_weight_moves(name: str, last: Any, message: str) -> None:
    kwargs: dict[str, Any] = {"n_steps": 64, "batch_size": 16, name: lambda _: last}
    with pytest.raises(ValueError, match=f"the schedule `{name}` must"):
        TRPO("MlpPolicy", RandomEnv(), **kwargs)
    kwargs[name] = lambda progress: 0.001 if progress else last
    model = TRPO("MlpPolicy", RandomEnv(), **kwargs)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    with pytest.raises(ValueError, match=f"the schedule `{name}` {message}"):
        model.learn(64)  # after one rollout the progress remaining is 0
    assert all(th.equal(value, before[key]) for key, value in model.policy.state_dict().items())


def test_no_environment_is_refused() -> None:
    with pytest.raises(ValueError, match="`env` must be an environment or the id of one, not None"):
        TRPO("MlpPolicy", None)  # type: ignore[arg-type]


def test_error_for_target_kl_none_explains_what_none_means_in_ppo() -> None:
    with pytest.raises(ValueError, match="PPO's early stopping"):
        TRPO("MlpPolicy", RandomEnv(), target_kl=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clip_range", "target_kl"),
        ("n_epochs", "n_critic_updates"),
        ("vf_coef", "learning_rate"),
        ("clip_range_vf", "max_grad_norm"),
    ],
)
def test_ppo_argument_is_refused_with_its_replacement(saved: Path, name: str, hint: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}.*{hint}"):
        TRPO("MlpPolicy", RandomEnv(), **{name: 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=rf"{name}.*{hint}"):
        TRPO.load(saved, **{name: 1})  # type: ignore[arg-type]


def test_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="no argument 'cg_stepz'"):
        TRPO("MlpPolicy", RandomEnv(), cg_stepz=3)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers() -> None:
    numbers: dict[str, Any] = {"n_steps": np.int64(64), "batch_size": np.int32(16), "target_kl": np.float64(0.01)}
    model = TRPO("MlpPolicy", RandomEnv(), normalize_advantage=np.True_, **numbers)  # type: ignore[arg-type]
    assert model.n_steps == 64


def test_one_transition_cannot_be_standardised_as_in_sb3() -> None:
    with pytest.raises(AssertionError, match=r"n_steps=1 and n_envs=1"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=1, batch_size=1)
    assert TRPO("MlpPolicy", RandomEnv(), n_steps=1, batch_size=1, normalize_advantage=False).n_steps == 1


@pytest.mark.parametrize("batch_size", [48, 128])
def test_batch_size_that_does_not_divide_the_rollout_warns_as_in_sb3(batch_size: int) -> None:
    with pytest.warns(UserWarning, match=f"`batch_size` = {batch_size} does not divide"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=batch_size)


@pytest.mark.parametrize(
    ("value", "at_start", "at_half", "at_end"),
    [
        (0.02, 0.02, 0.02, 0.02),
        ("lin_0.02", 0.02, 0.01, 0.0),
        (LinearSchedule(0.04, 0.02, 0.5), 0.04, 0.02, 0.02),
        (lambda progress: progress, 1.0, 0.5, 0.0),
    ],
)
@pytest.mark.parametrize("name", ["target_kl", "ent_coef"])
def test_schedules(name: str, value: Any, at_start: float, at_half: float, at_end: float) -> None:
    schedule = make_schedule(name, value)
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == pytest.approx([at_start, at_half, at_end])


@pytest.mark.parametrize("total", [-1, float("nan"), float("inf"), 1.5, "1e6", None, True])
def test_bad_total_timesteps_is_refused(total: Any) -> None:
    with pytest.raises(ValueError, match="`total_timesteps` must be"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).learn(total)


@pytest.mark.parametrize("name", ["rollout_buffer_class", "batch_size", "n_steps"])
def test_messages_show_classes_by_name_and_no_addresses(name: str) -> None:
    for value in (object(), th.nn.Linear, th.nn.Sequential(th.nn.ReLU())):
        with pytest.raises(ValueError, match=rf"`{name}` must be .*, not (an instance of )?(builtins|torch)\.\S*$") as error:
            TRPO("MlpPolicy", RandomEnv(), **{"n_steps": 64, "batch_size": 16, name: value})  # type: ignore[arg-type]
        assert "0x" not in str(error.value)
    with pytest.raises(ValueError, match=r"`total_timesteps` must be .*not an instance of builtins.object"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).learn(object())  # type: ignore[arg-type]
