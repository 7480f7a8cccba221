"""Algorithms whose step rule aims at a KL without bounding it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.logger import configure

from sb3_trpo import TRPO, DualTRPO, KLPenaltyTRPO, NaturalPolicyGradient
from sb3_trpo.algorithms.log import Update, log_update
from sb3_trpo.step.report import Outcome, UnboundedReport
from tests.toy_envs import OBSERVATIONS, ConstantEnv, RandomEnv

SMALL: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 32,
    "seed": 0,
    "n_critic_updates": 1,
    "device": "cpu",
    "cg_damping": 1.0,
    "scale_target_kl": False,
}
CLASSES: list[type[TRPO]] = [NaturalPolicyGradient, KLPenaltyTRPO, DualTRPO]


def report_of(model: TRPO) -> UnboundedReport:
    assert isinstance(model.last_step, UnboundedReport)
    return model.last_step


@pytest.mark.parametrize("cls", CLASSES)
def test_the_log_tells_the_coefficient_and_whether_the_target_was_exceeded(cls: type[TRPO]) -> None:
    model = cls("MlpPolicy", "CartPole-v1", target_kl=0.03, **SMALL)
    model.set_logger(configure(None, []))
    model.learn(128)
    logged, report = model.logger.name_to_value, report_of(model)
    assert report.accepted
    assert logged["train/kl_over_target"] == float(report.kl > 0.03)
    assert logged["train/target_kl"] == 0.03
    assert ("train/kl_coef" in logged) is (cls is not NaturalPolicyGradient)
    assert logged.get("train/kl_coef") == report.kl_coef


@pytest.mark.parametrize(("kl", "over"), [(0.02, 0.0), (0.04, 1.0)])
def test_the_target_in_the_log_is_that_of_the_update(kl: float, over: float) -> None:
    model = NaturalPolicyGradient("MlpPolicy", "CartPole-v1", **SMALL)
    model.set_logger(configure(None, []))
    model.learn(64)
    report = replace(report_of(model), kl=kl, target_kl=0.015)  # the step's own share, where running statistics move
    log_update(model.logger, Update(report, 0.0, [], 1, 0.0, 0.03), model.policy, model.rollout_buffer)
    assert model.logger.name_to_value["train/kl_over_target"] == over


def test_trpo_logs_no_coefficient() -> None:
    model = TRPO("MlpPolicy", "CartPole-v1", **SMALL)
    model.set_logger(configure(None, []))
    model.learn(128)
    assert not {"train/kl_over_target", "train/kl_coef"} & model.logger.name_to_value.keys()


@pytest.mark.parametrize("cls", [KLPenaltyTRPO, DualTRPO])
def test_the_coefficient_persists(cls: Any, tmp_path: Path) -> None:
    model = cls("MlpPolicy", "CartPole-v1", target_kl=0.03, **SMALL)
    assert model.kl_coef is None
    coefs = []
    for _ in range(4):
        model.learn(64, reset_num_timesteps=False)
        report = report_of(model)
        assert model.kl_coef == report.next_kl_coef
        coefs.append(report.kl_coef)
    assert coefs[1] != coefs[0] or coefs[2] != coefs[1]
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", env="CartPole-v1")
    assert loaded.kl_coef == model.kl_coef
    loaded.learn(64)
    assert report_of(loaded).kl_coef == model.kl_coef


def test_a_fixed_coefficient_stays() -> None:
    model = KLPenaltyTRPO("MlpPolicy", "CartPole-v1", kl_coef=0.01, adaptive_kl_coef=False, **SMALL).learn(192)
    assert model.kl_coef == 0.01
    assert report_of(model).kl_over_target  # so small a penalty does not hold it back


AUTOGRAD: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "gsde": ("MlpPolicy", "Pendulum-v1", {"use_sde": True}),
    "gelu": ("MlpPolicy", "Pendulum-v1", {"policy_kwargs": {"activation_fn": th.nn.GELU}, "chunk_size": 24}),
    "subset": ("MlpPolicy", "Pendulum-v1", {"fisher_sample_fraction": 0.5, "sub_sampling_factor": 2}),
    "dict": ("MultiInputPolicy", RandomEnv(OBSERVATIONS["dict"]), {}),
}


@pytest.mark.parametrize("name", AUTOGRAD)
def test_several_ascent_steps_of_any_policy(name: str) -> None:
    policy, env, settings = AUTOGRAD[name]
    reports = []
    for n_steps in (1, 3):
        model = KLPenaltyTRPO(policy, env, n_policy_updates=n_steps, target_kl=0.01, **SMALL, **settings).learn(64)
        reports.append(report_of(model))
    one, three = reports
    assert one.accepted
    assert three.accepted
    assert three.kl_coef == one.kl_coef is not None
    assert three.cg_iterations > one.cg_iterations
    assert three.surrogate - one.kl_coef * three.kl >= one.surrogate - one.kl_coef * one.kl


def test_without_signal_the_coefficient_stays() -> None:
    model = DualTRPO("MlpPolicy", ConstantEnv(), kl_coef=2.0, **SMALL).learn(64)
    assert model.last_step is not None
    assert model.last_step.outcome is Outcome.ZERO_SIGNAL
    assert model.kl_coef == 2.0


def test_a_fixed_step_size() -> None:
    models = [NaturalPolicyGradient("MlpPolicy", RandomEnv(), step_size=size, **SMALL).learn(64) for size in (0.01, 0.02)]
    first, second = (report_of(model) for model in models)
    assert second.expected_gain == pytest.approx(2.0 * first.expected_gain, rel=1e-4)
    assert second.kl == pytest.approx(4.0 * first.kl, rel=0.2)


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (NaturalPolicyGradient, "step_size", 0.0),
        (KLPenaltyTRPO, "kl_coef", 0),
        (KLPenaltyTRPO, "adaptive_kl_coef", "yes"),
        (KLPenaltyTRPO, "n_policy_updates", 0),
        (DualTRPO, "kl_coef", -1.0),
        (DualTRPO, "dual_learning_rate", float("nan")),
        (DualTRPO, "n_policy_updates", 1.5),
    ],
)
def test_arguments_out_of_range_are_named(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        cls("MlpPolicy", "CartPole-v1", **SMALL, **{name: value})
    model = cls("MlpPolicy", "CartPole-v1", **SMALL)
    setattr(model, name, value)
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        model.learn(64)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_unknown_argument_is_refused(cls: Any) -> None:
    with pytest.raises(TypeError, match=f"{cls.__name__} has no argument 'targt_kl'; did you mean 'target_kl'"):
        cls("MlpPolicy", "CartPole-v1", targt_kl=0.1)


@pytest.mark.parametrize("cls", CLASSES)
def test_it_continues_from_a_trpo_model(cls: type[TRPO]) -> None:
    model = TRPO("MlpPolicy", "CartPole-v1", target_kl=0.02, **SMALL).learn(64)
    continued = cls.from_ppo(model)
    continued.learn(64)
    assert report_of(continued).target_kl == 0.02


@pytest.mark.parametrize("cls", CLASSES)
def test_the_class_documents_every_argument_it_adds(cls: type[TRPO]) -> None:
    assert all(f":param {name}:" in (cls.__doc__ or "") for name in cls.extra_arguments)
