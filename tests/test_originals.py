"""A replaced method is found wherever and whenever it was replaced."""

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch as th
from stable_baselines3.common import policies
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor, NatureCNN
from torch import nn

from sb3_trpo.originals import altered_method, is_original
from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN

CLASSES: list[type] = [
    *(ActorCriticPolicy, CnnPolicy, PaperCnnPolicy, MultiInputPolicy),
    *(FlattenExtractor, MlpExtractor, NatureCNN, NormalizedCNN, PaperCNN),
    *(DiagGaussianDistribution, CategoricalDistribution, MultiCategoricalDistribution, BernoulliDistribution),
    *(StateDependentNoiseDistribution, th.distributions.Normal, th.distributions.Categorical, th.distributions.Bernoulli),
    *(RolloutBuffer, DictRolloutBuffer, th.optim.Adam, th.optim.AdamW),
    *(nn.Linear, nn.Conv2d, nn.Sequential, nn.Flatten, nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_unaltered_classes_are_original(cls: type) -> None:
    assert altered_method([cls]) is None


def test_an_optimizer_is_original_though_torch_wraps_its_step() -> None:
    assert altered_method([th.optim.Adam([nn.Parameter(th.zeros(1))]), th.optim.AdamW([nn.Parameter(th.zeros(1))])]) is None


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("replace", [wrapped, lambda _: Mock(), lambda f: functools.partial(f), lambda _: lambda self: None])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ActorCriticPolicy, "forward"),
        (ActorCriticPolicy, "_build"),
        (policies.BasePolicy, "predict"),
        (DiagGaussianDistribution, "sample"),
        (th.distributions.Normal, "rsample"),
        (nn.Linear, "forward"),
        (nn.Module, "__call__"),
        (RolloutBuffer, "add"),
        (th.optim.Adam, "step"),
    ],
)
def test_a_replaced_method_is_found(
    owner: Any, name: str, replace: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = {policies.BasePolicy: ActorCriticPolicy, nn.Module: nn.Linear}.get(owner, owner)
    monkeypatch.setattr(owner, name, replace(getattr(owner, name)))
    assert altered_method([cls]) == f"`{name}` of {owner.__name__}"


def test_another_method_of_the_same_class_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiagGaussianDistribution, "sample", DiagGaussianDistribution.mode)
    assert altered_method([DiagGaussianDistribution]) == "`sample` of DiagGaussianDistribution"


def test_a_method_of_the_object_alone_is_found() -> None:
    layer: Any = nn.Linear(1, 1)
    assert altered_method([layer]) is None
    layer.forward = lambda x: x
    assert altered_method([layer]) == "`forward` of the Linear"


def test_functions_of_modules_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["stable_baselines3.common.preprocessing"]
    assert is_original(module, "preprocess_obs")
    monkeypatch.setattr(module, "preprocess_obs", wrapped(module.preprocess_obs))
    assert not is_original(module, "preprocess_obs")


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("D.DiagGaussianDistribution.sample = D.DiagGaussianDistribution.mode", "`sample` of DiagGaussianDistribution"),
        ("P.ActorCriticPolicy.forward = lambda self, obs: None", "`forward` of ActorCriticPolicy"),
        ("R.preprocess_obs = P.preprocess_obs = lambda obs, space, normalize_images=True: obs", "`preprocess_obs`"),
        ("R.is_image_space = lambda space, **_: False", "`is_image_space`"),
        ("F.linear = lambda x, w, b: x @ w.T + b", "`linear`"),
        ("torch.tanh = torch.sigmoid", "`tanh`"),
    ],
)
def test_changes_made_before_the_import_count(patch: str, reason: str) -> None:
    program = f"""
import gymnasium, stable_baselines3.common.distributions as D, stable_baselines3.common.policies as P
import stable_baselines3.common.preprocessing as R, torch, torch.nn.functional as F
{patch}
from sb3_trpo import TRPO
from sb3_trpo.actor.plain_policy import PlainPolicy
print(PlainPolicy.of(TRPO("MlpPolicy", gymnasium.make("Pendulum-v1"), device="cpu").policy))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{reason} is patched"
