"""The module refuses policies whose ``predict`` it would not run, and outputs that there are not."""

from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo import TRPO, MaskableTRPO, MlpLstmPolicy, RecurrentTRPO
from sb3_trpo.export.further_inputs import inputs_of
from sb3_trpo.export.module import ExportedPolicy, check_outputs, check_predicts_as_sb3
from sb3_trpo.export.preparation import preparation_of
from sb3_trpo.policies.recurrent_interface import RecurrentInterface
from tests.export.models import make_model
from tests.helpers import MaskedPolicy, StudentTPolicy


class OwnPredict(ActorCriticPolicy):
    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return super()._predict(observation, deterministic) + 1.0


class OwnScale(ActorCriticPolicy):
    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        return 2.0 * super().unscale_action(scaled_action)


class OwnAlgorithm(TRPO):
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return super().predict(*args, **kwargs)


def module_of(model: TRPO) -> ExportedPolicy:
    inputs = inputs_of(model, preparation_of(model, "auto", None), ["action"])
    return ExportedPolicy(model, inputs, ["action"])


class OwnMemory(MlpLstmPolicy):
    def predict(self, observation: Any, state: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().predict(observation, None, *args, **kwargs)


class OwnInterface(RecurrentInterface):
    pass


@pytest.mark.parametrize(("policy", "name"), [(OwnPredict, "_predict"), (OwnScale, "unscale_action")])
def test_custom_predictions_are_refused(policy: type[ActorCriticPolicy], name: str) -> None:
    with pytest.raises(TypeError, match=f"{policy.__name__} has a custom `{name}`"):
        module_of(make_model(policy=policy))


def test_replaced_predictions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    monkeypatch.setattr(model.policy, "obs_to_tensor", lambda obs: obs)
    with pytest.raises(TypeError, match="ActorCriticPolicy has a custom `obs_to_tensor`"):
        check_predicts_as_sb3(model)
    with pytest.raises(TypeError, match="OwnAlgorithm has a custom `predict`"):
        check_predicts_as_sb3(OwnAlgorithm("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu"))


def test_custom_ways_to_remember_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = {"n_steps": 8, "batch_size": 8, "device": "cpu", "policy_kwargs": {"lstm_hidden_size": 2}}
    with pytest.raises(TypeError, match="OwnMemory has a custom `predict`"):
        module_of(RecurrentTRPO(OwnMemory, "CartPole-v1", **settings))
    model = RecurrentTRPO("MlpLstmPolicy", "CartPole-v1", **settings)
    module_of(model)
    monkeypatch.setattr(RecurrentTRPO, "interface_class", OwnInterface)
    with pytest.raises(TypeError, match="called through a custom OwnInterface cannot be exported"):
        module_of(model)


def test_maskable_policies_of_sb3_contrib_are_refused() -> None:
    model = MaskableTRPO(MaskableActorCriticPolicy, "CartPole-v1", n_steps=8, batch_size=8, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not an instance of sb3_contrib.*MaskableActorCriticPolicy"):
        module_of(model)


def test_a_compiled_policy_is_refused() -> None:
    model = make_model()
    model.policy = th.nn.Sequential(model.policy)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="only a policy that is an ActorCriticPolicy can be exported, not "):
        module_of(model)


@pytest.mark.parametrize(("policy", "actions"), [(MaskedPolicy, "discrete"), (StudentTPolicy, "box")])
def test_custom_distributions_are_computed(policy: type[ActorCriticPolicy], actions: str) -> None:
    model = make_model(policy=policy, actions=actions)
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    (found,) = module_of(model)(th.as_tensor(observations))
    assert np.array_equal(found.detach().numpy(), model.predict(observations, deterministic=True)[0])


def test_the_module_is_a_copy_in_evaluation_mode() -> None:
    model = make_model()
    model.policy.set_training_mode(True)
    module = module_of(model)
    assert not module.policy.training
    observations = th.ones(2, 3)
    before = module(observations)[0].clone()
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(1.0)
    assert th.equal(module(observations)[0], before)


@pytest.mark.parametrize("outputs", ["action", [], ["actions"], ["value", "value"], 3, None])
def test_wrong_outputs_are_named(outputs: Any) -> None:
    with pytest.raises(ValueError, match=r"`outputs` must be .*'action', 'value', 'log_prob', 'probabilities'"):
        check_outputs(outputs, make_model().policy)


def test_outputs_that_a_policy_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"'probabilities' for Box.*: its actions have densities"):
        check_outputs(["probabilities"], make_model().policy)
    squashed = make_model(use_sde=True, policy_kwargs={"squash_output": True})
    with pytest.raises(ValueError, match="cannot have 'log_prob' for squashed actions"):
        check_outputs(["log_prob"], squashed.policy)
