"""Every bad hyperparameter is refused by name, at construction and at load."""

import inspect
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.utils import LinearSchedule

from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.checks import described
from tests.helpers import generator_states
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
    ("rollout_buffer_class", dict),
    ("rollout_buffer_class", ReplayBuffer),
    ("rollout_buffer_kwargs", [1]),
    ("rollout_buffer_kwargs", "dict()"),
    ("seed", 1.5),
    ("seed", -1),
    ("seed", True),
    ("seed", 2**32),
    ("seed", "0"),
]
HUGE: Any = 10**400
"""Fits into no float; its digits fill no message."""


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
        (-1.0, "must give finite numbers >= 0, not -1.0 at progress=0.5"),
        (float("nan"), "must give finite numbers >= 0, not nan"),
        (float("inf"), "must give finite numbers >= 0, not inf"),
        (None, "must map a number to a number"),
    ],
)
def test_bad_schedule_is_refused_at_construction_and_before_a_weight_moves(name: str, last: Any, message: str) -> None:
    kwargs: dict[str, Any] = {"n_steps": 64, "batch_size": 16, name: lambda _: last}
    with pytest.raises(ValueError, match=f"the schedule `{name}` must"):
        TRPO("MlpPolicy", RandomEnv(), **kwargs)
    kwargs[name] = lambda progress: 0.001 if progress == 1.0 else last
    model = TRPO("MlpPolicy", RandomEnv(), **kwargs)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    with pytest.raises(ValueError, match=f"the schedule `{name}` {message}"):
        model.learn(128)  # after the first of two rollouts the progress remaining is 0.5
    assert all(th.equal(value, before[key]) for key, value in model.policy.state_dict().items())


NO_NUMBERS = {"normalize_advantage", "use_sde", "rollout_buffer_class", "rollout_buffer_kwargs"}
NUMBERS = [*{name for name, _ in BAD} - NO_NUMBERS, "stats_window_size"]


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_huge_integer_is_refused_by_name(saved: Path, name: str) -> None:
    message = rf"`{name}` must be .*, not an integer of 1329 bits, which is too large"
    with pytest.raises(ValueError, match=message):
        TRPO("MlpPolicy", RandomEnv(), **{"n_steps": 64, "batch_size": 16, name: HUGE})
    with pytest.raises(ValueError, match=message):
        TRPO.load(saved, RandomEnv(), **{name: HUGE})


@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**5000, Fraction(10**5000), Fraction(1, HUGE)], ids=range(5))
@pytest.mark.parametrize("name", ["target_kl", "max_grad_norm", "line_search_shrinking_factor"])
def test_number_beyond_floats_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TRPO("MlpPolicy", RandomEnv(), **{"n_steps": 64, "batch_size": 16, name: value})


def test_schedule_that_gives_a_huge_integer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="the schedule `ent_coef` must map a number to a number"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16, ent_coef=lambda _: HUGE)


@pytest.mark.parametrize("seed", [1.5, -1, True, 2**32, "0"])
def test_bad_seed_is_refused_before_any_generator_is_seeded(saved: Path, seed: Any) -> None:
    model, before = TRPO.load(saved, RandomEnv()), generator_states()
    with pytest.raises(ValueError, match=r"`seed` must be None or an integer in \[0, 2\*\*32 - 1\], not "):
        model.set_random_seed(seed)
    assert generator_states() == before


@pytest.mark.parametrize("seed", [0, 2**32 - 1, np.int64(3), np.uint32(3)])
def test_good_seed(seed: Any) -> None:
    assert TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16, seed=seed).learn(64)._draw_seed == seed


@pytest.mark.parametrize("cls", [TRPO, VineTRPO])
@pytest.mark.parametrize("value", ["lin_0.001", lambda progress: 0.001 * progress, LinearSchedule(0.001, 0.0, 1.0)])
def test_learning_rate_as_string_or_schedule(cls: type[TRPO], value: Any, tmp_path: Path) -> None:
    model = cls("MlpPolicy", "Pendulum-v1", learning_rate=value, n_steps=64, batch_size=16)
    assert [model.lr_schedule(progress) for progress in (1.0, 0.5, 0.0)] == pytest.approx([0.001, 0.0005, 0.0])
    model.save(tmp_path / "model")
    is_code = not isinstance(value, str | LinearSchedule)
    loaded = cls.load(tmp_path / "model", model.env, trusted=is_code)
    assert loaded.lr_schedule(0.5) == pytest.approx(0.0005)
    if isinstance(value, str):
        assert vars(loaded)["learning_rate"] == value
    loaded.learn(64)
    again = cls.load(tmp_path / "model", model.env, learning_rate="lin_0.1")
    assert again.lr_schedule(0.5) == pytest.approx(0.05)
    continued = cls.from_ppo(PPO("MlpPolicy", "Pendulum-v1", n_steps=64), batch_size=16, learning_rate=value)
    assert continued.lr_schedule(0.5) == pytest.approx(0.0005)


def test_no_environment_is_refused() -> None:
    with pytest.raises(ValueError, match="`env` must be an environment or the id of one, not None"):
        TRPO("MlpPolicy", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("learning_rate", ">= 0"), ("target_kl", r"> 0 \(nats\)"), ("ent_coef", ">= 0")],
)
def test_error_for_a_schedule_names_all_that_is_allowed(name: str, allowed: str) -> None:
    message = rf"^`{name}` must be a finite number {allowed}, a schedule, or a string such as 'lin_0\.02', not -1\.$"
    with pytest.raises(ValueError, match=message):
        TRPO("MlpPolicy", RandomEnv(), **{name: -1})  # type: ignore[arg-type]


def test_error_for_target_kl_none_explains_what_none_means_in_ppo() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), target_kl=None)  # the default
    model.target_kl = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="PPO's early stopping"):
        model.learn(64)


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


def test_misspelt_argument_is_refused_with_the_nearest(saved: Path) -> None:
    ppo = PPO("MlpPolicy", RandomEnv(), n_steps=64)
    kwargs: dict[str, Any] = {"target_k": 0.01}
    makers: list[Callable[[], TRPO]] = [
        lambda: TRPO("MlpPolicy", RandomEnv(), **kwargs),
        lambda: TRPO.load(saved, **kwargs),
        lambda: TRPO.from_ppo(ppo, **kwargs),
    ]
    for make in makers:
        with pytest.raises(TypeError, match=r"^TRPO has no argument 'target_k'; did you mean 'target_kl'\?$"):
            make()
    with pytest.raises(TypeError, match=r"^TRPO has no argument 'n_step'; did you mean 'n_steps'\?$"):
        TRPO("MlpPolicy", RandomEnv(), n_step=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^VineTRPO has no argument 'branch_len'; did you mean 'branch_length'\?$"):
        VineTRPO("MlpPolicy", "Pendulum-v1", branch_len=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^TRPO has no argument 'qqq'$"):
        TRPO("MlpPolicy", RandomEnv(), qqq=3)  # type: ignore[arg-type]


def test_policy_is_refused_where_there_is_one_and_is_never_a_hint(saved: Path) -> None:
    kwargs: dict[str, Any] = {"policy": "MlpPolicy"}
    with pytest.raises(TypeError, match=r"^the file has its own policy: leave out `policy` = 'MlpPolicy'$"):
        TRPO.load(saved, **kwargs)
    with pytest.raises(TypeError, match=r"^the model has its own policy: leave out `policy` = 'MlpPolicy'$"):
        TRPO.from_ppo(PPO("MlpPolicy", RandomEnv(), n_steps=64), **kwargs)
    with pytest.raises(TypeError, match=r"^TRPO has no argument 'polic'$"):
        TRPO.load(saved, polic="MlpPolicy")
    with pytest.raises(TypeError, match=r"^TRPO has no argument '_init_setup_model'$"):
        TRPO.load(saved, _init_setup_model=True)


def test_misspelt_policy_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"`policy` must be .*'CnnPolicy'.*, not 'MlpPolcy'; did you mean 'MlpPolicy'"):
        TRPO("MlpPolcy", RandomEnv())


def test_vine_takes_the_arguments_of_trpo_in_the_same_order() -> None:
    trpo, vine = (list(inspect.signature(cls, eval_str=True).parameters.values()) for cls in (TRPO, VineTRPO))
    assert [parameter for parameter in vine if parameter.name not in VineTRPO.extra_arguments] == trpo
    assert {p.name for p in vine if p not in trpo} == set(VineTRPO.extra_arguments)
    assert VineTRPO("MlpPolicy", "Pendulum-v1", 5e-3, 64, 16).learning_rate == 5e-3


def test_numpy_numbers_are_numbers() -> None:
    numbers: dict[str, Any] = {"n_steps": np.int64(64), "batch_size": np.int32(16), "target_kl": np.float64(0.01)}
    model = TRPO("MlpPolicy", RandomEnv(), normalize_advantage=np.True_, **numbers)  # type: ignore[arg-type]
    assert model.n_steps == 64


def test_one_transition_cannot_be_standardised_as_in_sb3() -> None:
    with pytest.raises(AssertionError, match=r"n_steps=1 and n_envs=1"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=1, batch_size=1)
    assert TRPO("MlpPolicy", RandomEnv(), n_steps=1, batch_size=1, normalize_advantage=False).n_steps == 1


ROLLOUT = r"the rollout of `n_steps \* n_envs` = 64 \* 1 = 64"
UNEVEN = [
    (48, rf"`batch_size` = 48 does not divide {ROLLOUT}: the critic's last mini-batch of each pass has 16 transitions\.$"),
    (128, rf"`batch_size` = 128 exceeds {ROLLOUT}: each pass of the critic has one mini-batch of 64 transitions\.$"),
]


@pytest.mark.parametrize(("batch_size", "message"), UNEVEN)
def test_batch_size_that_does_not_divide_the_rollout_warns_as_in_sb3(batch_size: int, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=batch_size)


UNEVEN_MAKERS: dict[str, Callable[[Path], TRPO]] = {
    "TRPO": lambda _: TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=48),
    "VineTRPO": lambda _: VineTRPO("MlpPolicy", "Pendulum-v1", n_steps=64, batch_size=48),
    "load": lambda saved: TRPO.load(saved, RandomEnv(), batch_size=48),
    "from_ppo": lambda _: TRPO.from_ppo(PPO("MlpPolicy", RandomEnv(), n_steps=64), batch_size=48),
}


@pytest.mark.parametrize("maker", UNEVEN_MAKERS)
def test_the_warning_points_to_the_users_line(saved: Path, maker: str) -> None:
    with pytest.warns(UserWarning, match="does not divide") as seen:
        UNEVEN_MAKERS[maker](saved)
    assert [warning.filename for warning in seen] == [__file__]


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


@pytest.mark.parametrize("total", [-1, float("nan"), float("inf"), 1.5, "1e6", None, True, HUGE])
def test_bad_total_timesteps_is_refused(total: Any) -> None:
    with pytest.raises(ValueError, match="`total_timesteps` must be"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).learn(total)


@pytest.mark.parametrize("interval", [0, -1, 1.5, True, "1", HUGE])
def test_bad_log_interval_is_refused_before_anything_is_collected(saved: Path, interval: Any) -> None:
    model = TRPO.load(saved, RandomEnv())
    with pytest.raises(ValueError, match="`log_interval` must be None or an integer >= 1, not "):
        model.learn(64, log_interval=interval)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("interval", [None, 1, 2, np.int64(3)])
def test_good_log_interval(saved: Path, interval: Any) -> None:
    assert TRPO.load(saved, RandomEnv()).learn(64, log_interval=interval).num_timesteps == 64


@pytest.mark.parametrize("name", ["rollout_buffer_class", "batch_size", "n_steps"])
def test_messages_show_classes_by_name_and_no_addresses(name: str) -> None:
    for value in (object(), th.nn.Linear, th.nn.Sequential(th.nn.ReLU())):
        with pytest.raises(ValueError, match=rf"`{name}` must be .*, not (an instance of )?(builtins|torch)\.\S*$") as error:
            TRPO("MlpPolicy", RandomEnv(), **{"n_steps": 64, "batch_size": 16, name: value})  # type: ignore[arg-type]
        assert "0x" not in str(error.value)
    with pytest.raises(ValueError, match=r"`total_timesteps` must be .*not an instance of builtins.object"):
        TRPO("MlpPolicy", RandomEnv(), n_steps=64, batch_size=16).learn(object())  # type: ignore[arg-type]
