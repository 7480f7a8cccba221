"""Policies that cannot be trained, and conditions in which nothing learns, are refused before anything moves."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sb3_contrib as contrib
import sb3_contrib.common.maskable.policies as maskable
import sb3_contrib.common.recurrent.policies as recurrent
import stable_baselines3 as sb3
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO
from sb3_trpo.arguments.policies import check_policy_class, why_not_trainable
from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.interface import PolicyInterface
from tests.helpers import MaskedPolicy, SquashedGaussianPolicy, StudentTPolicy, collect
from tests.toy_envs import ACTIONS, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "seed": 0}

REFUSED: list[tuple[Any, str]] = [
    (recurrent.RecurrentActorCriticPolicy, "RecurrentActorCriticPolicy needs more than observations .*lstm_states"),
    (recurrent.RecurrentActorCriticCnnPolicy, "RecurrentActorCriticCnnPolicy needs more than observations"),
    (recurrent.RecurrentMultiInputActorCriticPolicy, "RecurrentMultiInputActorCriticPolicy needs more than observations"),
    (maskable.MaskableActorCriticPolicy, "MaskableActorCriticPolicy is not a subclass of ActorCriticPolicy"),
    (sb3.dqn.MlpPolicy, "DQNPolicy is not a subclass of ActorCriticPolicy"),
    (sb3.sac.MlpPolicy, "SACPolicy is not a subclass of ActorCriticPolicy"),
    (nn.Linear, "Linear is not a subclass of ActorCriticPolicy"),
    (nn.Linear(1, 1), "is not a class"),
    (nn.Sequential(nn.Linear(1, 1)), "an instance of torch.nn.modules.container.Sequential is not a class"),
    (lambda *_: None, "an instance of builtins.function is not a class"),
    (None, "None is not a class"),
]


@pytest.mark.parametrize("algorithm", [TRPO, VineTRPO])
@pytest.mark.parametrize(("policy", "message"), REFUSED)
def test_policies_that_cannot_be_trained_are_refused(algorithm: type[TRPO], policy: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"MlpPolicy, .*subclass of Stable-Baselines3's ActorCriticPolicy.*{message}") as error:
        algorithm(policy, RandomEnv(action_space=ACTIONS["discrete"]), **SMALL)
    assert not re.search(r" at 0x|<class", str(error.value))


def test_an_instance_of_a_policy_is_refused() -> None:
    policy = TRPO("MlpPolicy", RandomEnv(), **SMALL).policy
    with pytest.raises(TypeError, match=r"an instance of .*ActorCriticPolicy is not a class"):
        TRPO(policy, RandomEnv(), **SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", [TRPO, VineTRPO])
@pytest.mark.parametrize("policy", ["MlpPolicy", ActorCriticPolicy])
@pytest.mark.parametrize(
    ("net_arch", "unknown"),
    [
        ({"qf": [8]}, "'qf'"),
        ({"pi": [8], "vf": [8], "qf": [8], "shared": [4]}, "'qf', 'shared'"),
        ([{"pi": [8], "v": [8]}], "'v'"),
    ],
)
def test_a_net_arch_with_other_keys_is_refused(algorithm: type[TRPO], policy: Any, net_arch: Any, unknown: str) -> None:
    with pytest.raises(ValueError, match=rf"`net_arch`.*'pi' \(actor\) and 'vf' \(critic\) only.* no network for {unknown}$"):
        algorithm(policy, "Pendulum-v1", policy_kwargs={"net_arch": net_arch}, **SMALL)


class WithTwoCritics(ActorCriticPolicy):
    """Knows another key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.second = kwargs["net_arch"]["qf"]
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize("net_arch", [None, [], [8], {}, {"pi": [8]}, {"vf": [8]}, {"pi": [], "vf": [8, 8]}])
def test_other_net_archs_are_kept(net_arch: Any) -> None:
    TRPO("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": net_arch}, **SMALL)
    model = TRPO(WithTwoCritics, RandomEnv(), policy_kwargs={"net_arch": {"pi": [8], "qf": [9]}}, **SMALL)
    assert vars(model.policy)["second"] == [9]


def test_a_saved_model_with_other_keys_loads(tmp_path: Path) -> None:
    theirs = contrib.TRPO("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": {"pi": [8], "vf": [8], "qf": [8]}}, **SMALL)
    theirs.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="averages the KL"):
        assert TRPO.load(tmp_path / "model", RandomEnv()).learn(16).num_timesteps == 16


class MoreOptions(ActorCriticPolicy):
    """Its methods have further arguments, which need not be given."""

    def get_distribution(self, obs: Any, temperature: float = 1.0) -> Any:
        return super().get_distribution(obs)

    def predict_values(self, *args: Any) -> Any:
        return super().predict_values(*args)


@pytest.mark.parametrize(
    "policy", [MoreOptions, MaskedPolicy, StudentTPolicy, SquashedGaussianPolicy, CnnPolicy, PaperCnnPolicy, MultiInputPolicy]
)
def test_actor_critic_policies_are_trainable(policy: Any) -> None:
    assert why_not_trainable(policy) is None


def test_an_algorithm_with_its_own_interface_may_take_any_policy() -> None:
    for policy in (maskable.MaskableActorCriticPolicy, recurrent.RecurrentActorCriticPolicy):
        check_policy_class(policy, ["MlpPolicy"], own_interface=True)
    with pytest.raises(TypeError, match="Linear is not a subclass"):
        check_policy_class(nn.Linear, ["MlpPolicy"], own_interface=True)

    class Own(TRPO):
        interface_class = type("OwnInterface", (PolicyInterface,), {})

    assert hasattr(Own(recurrent.RecurrentActorCriticPolicy, RandomEnv(), **SMALL).policy, "lstm_actor")


def moved(model: TRPO, before: list[th.Tensor]) -> bool:
    return not all(th.equal(*pair) for pair in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("switch", [th.inference_mode, th.no_grad])
def test_learning_without_gradients_is_refused_before_the_first_step(switch: Any) -> None:
    env = RandomEnv()
    model = TRPO("MlpPolicy", env, **SMALL)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    with switch(), pytest.raises(RuntimeError, match=rf"torch.{switch.__name__}\(\) switches off"):
        model.learn(64)
    assert (model.num_timesteps, env.steps) == (0, 0)
    collect(model)
    with switch(), pytest.raises(RuntimeError, match=rf"torch.{switch.__name__}\(\) switches off"):
        model.train()
    assert not moved(model, before)
    model.learn(16)
    assert moved(model, before)


def test_a_policy_made_in_inference_mode_is_refused(tmp_path: Path) -> None:
    with th.inference_mode():
        model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    with pytest.raises(RuntimeError, match=r"made or loaded under torch.inference_mode\(\)"):
        model.learn(64)
    with pytest.raises(RuntimeError, match=r"made or loaded under torch.inference_mode\(\)"):
        model.train()
    model.save(tmp_path / "model")
    assert TRPO.load(tmp_path / "model", RandomEnv()).learn(16)._n_updates == 1


@pytest.fixture
def validation() -> Iterator[None]:
    """Put back the check of distributions, which torch.compile switches off for the whole process."""
    before = th.distributions.Distribution._validate_args
    yield
    th.distributions.Distribution.set_default_validate_args(before)


@pytest.mark.usefixtures("validation")
def test_a_compiled_policy_is_refused_before_anything_moves() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.policy = th.compile(model.policy, backend="eager")  # type: ignore[assignment]
    with pytest.raises(
        TypeError, match=r"not an instance of .*OptimizedModule; torch.compile.*`model.policy = model.policy._orig"
    ):
        model.learn(64)
    assert not moved(model, before)
    model.policy = model.policy._orig_mod  # type: ignore[assignment]  # what the message says
    assert moved(model.learn(16), before)


def test_another_wrapper_of_the_policy_is_refused() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    model.policy = nn.DataParallel(model.policy)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"not an instance of .*DataParallel; wrap the networks inside"):
        model.learn(64)


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")  # torch's, of that Python version alone
@pytest.mark.usefixtures("validation")
def test_an_error_of_a_compiled_network_leaves_everything_in_place() -> None:
    model = TRPO("MlpPolicy", RandomEnv(), **SMALL)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.policy.mlp_extractor.policy_net = th.compile(model.policy.mlp_extractor.policy_net, backend="aot_eager")  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"cannot be differentiated twice.*torch.compile"):
        model.learn(64)
    assert not moved(model, before)


def test_learning_without_an_environment_is_refused(tmp_path: Path) -> None:
    TRPO("MlpPolicy", RandomEnv(), **SMALL).save(tmp_path / "model")
    model = TRPO.load(tmp_path / "model")
    with pytest.raises(ValueError, match="no environment to learn from: pass `env` to `load`, or call `set_env`"):
        model.learn(16)
    model.set_env(RandomEnv())
    assert model.learn(16)._n_updates == 1
