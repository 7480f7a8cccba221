"""The critic learns, and moves nothing that the KL reaches."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sb3_trpo import TRPO
from sb3_trpo.actor.plain_policy import PlainPolicy
from sb3_trpo.batch.batch import Batch
from sb3_trpo.update.critic import critic_parameters, fit_critic
from sb3_trpo.update.critic_epochs import Epoch, FitData, make_epoch
from sb3_trpo.update.fused_adam import _AdamKernel
from tests.helpers import OwnBuffer, batch_of, collect, reached
from tests.toy_envs import OBSERVATIONS, RandomEnv


class OwnDictBuffer(DictRolloutBuffer):
    """Reads its samples its own way."""

    def get(self, batch_size: int | None = None) -> Iterator[Any]:  # type: ignore[override]
        yield from super().get(batch_size)


def collected(policy: str | type[ActorCriticPolicy] = "MlpPolicy", observations: str = "vector", **kwargs: Any) -> TRPO:
    """A model with a full rollout and no update yet."""
    env = RandomEnv(OBSERVATIONS[observations])
    return collect(TRPO(policy, env, n_steps=64, batch_size=16, seed=0, **kwargs))


def epoch_of(model: TRPO, parameters: list[th.nn.Parameter], batch: Batch, batch_size: int, chunk_size: int) -> Epoch:
    """One pass of the critic's fit, as the update makes it."""
    data = FitData(model.rollout_buffer, batch, batch_size, chunk_size)
    return make_epoch(model.interface, PlainPolicy.of(model.policy), parameters, data)


def fit(model: TRPO, n_epochs: int = 3, max_grad_norm: float | None = None) -> list[float]:
    batch = batch_of(model)
    model.policy.set_training_mode(False)
    actor = reached(model.policy, batch)
    parameters = critic_parameters(model.policy, actor)
    epoch = epoch_of(model, parameters, batch, model.batch_size, 64)
    return fit_critic(model.policy, parameters, epoch, n_epochs, max_grad_norm)


def give_moments(model: TRPO) -> None:
    """Let the optimizer move every parameter once, so that it holds moments of all of them."""
    for parameter in model.policy.parameters():
        parameter.grad = th.ones_like(parameter)
    model.policy.optimizer.step()


def state(policy: ActorCriticPolicy) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in policy.state_dict().items()}


def moved(before: dict[str, th.Tensor], policy: ActorCriticPolicy) -> set[str]:
    return {name for name, value in policy.state_dict().items() if not th.equal(value, before[name])}


VALUE_HEAD = {"value_net.weight", "value_net.bias"}
VALUE_MLP = {f"mlp_extractor.value_net.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}


@pytest.mark.parametrize("buffer", [None, OwnBuffer])
@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (th.optim.Adam, {}),
        (th.optim.Adam, {"weight_decay": 0.1}),
        (th.optim.AdamW, {"weight_decay": 0.1}),
        (th.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (th.optim.RMSprop, {}),
        (RMSpropTFLike, {}),  # counts its steps in a plain integer
    ],
)
def test_only_the_critic_moves(buffer: Any, optimizer: Any, settings: dict[str, Any]) -> None:
    kwargs = {"optimizer_class": optimizer, "optimizer_kwargs": settings}
    model = collected(policy_kwargs=kwargs, rollout_buffer_class=buffer)
    # moments of the actor, as a PPO optimizer would have left them
    give_moments(model)
    before = state(model.policy)
    fit(model)
    assert moved(before, model.policy) == VALUE_HEAD | VALUE_MLP


@pytest.mark.parametrize("share", [True, False])
def test_a_shared_extractor_belongs_to_the_actor(share: bool) -> None:
    model = collected("CnnPolicy", "image", policy_kwargs={"share_features_extractor": share})
    before = state(model.policy)
    fit(model, n_epochs=1)
    names = moved(before, model.policy)
    assert names >= VALUE_HEAD
    if share:
        assert names == VALUE_HEAD
    else:
        assert names > VALUE_HEAD
        assert all(name.startswith(("value_net", "vf_features_extractor")) for name in names)


def test_features_of_a_shared_extractor_are_computed_once() -> None:
    model = collected("CnnPolicy", "image", policy_kwargs={"share_features_extractor": True})
    seen = []
    fit(model, n_epochs=0)
    model.policy.features_extractor.register_forward_hook(lambda *args: seen.append(len(args[2])))
    batch = batch_of(model)
    parameters = critic_parameters(model.policy, reached(model.policy, batch))
    seen.clear()
    epoch = epoch_of(model, parameters, batch, 16, 24)
    fit_critic(model.policy, parameters, epoch, n_epochs=3, max_grad_norm=None)
    assert seen == [24, 24, 16]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("observations", ["vector", "discrete", "multi_discrete", "multi_binary", "image", "dict"])
def test_direct_reads_change_nothing(observations: str, share: bool) -> None:
    policy = {"image": "CnnPolicy", "dict": "MultiInputPolicy"}.get(observations, "MlpPolicy")
    model = collected(policy, observations, policy_kwargs={"share_features_extractor": share})
    parameters = list(model.policy.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    results = []
    # without autograd or on features, as the policy allows; and as SB3 does it
    for cls in (type(model.rollout_buffer), OwnDictBuffer if observations == "dict" else OwnBuffer):
        model.rollout_buffer.__class__ = cls
        model.policy.optimizer = th.optim.Adam(parameters, lr=1e-3, eps=1e-5)
        for parameter, value in zip(parameters, start, strict=True):
            parameter.data.copy_(value)
        np.random.seed(1)  # noqa: NPY002
        losses = fit(model)
        results.append((losses, th.nn.utils.parameters_to_vector(parameters).detach()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    th.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)


def test_a_layer_that_is_used_twice_gets_both_gradients() -> None:
    model = collected(policy_kwargs={"net_arch": {"pi": [8], "vf": [8, 8, 8]}})
    net = model.policy.mlp_extractor.value_net
    net[4] = net[2]
    batch = batch_of(model)
    parameters = critic_parameters(model.policy, reached(model.policy, batch))
    assert isinstance(batch.states.observations, th.Tensor)
    loss = th.nn.functional.mse_loss(model.policy.predict_values(batch.states.observations).flatten(), batch.returns)
    expected = th.autograd.grad(loss, parameters)
    next(epoch_of(model, parameters, batch, len(batch), 64)())
    for parameter, gradient in zip(parameters, expected, strict=True):
        th.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", [0, 2])
def test_a_partly_frozen_cnn_is_fitted_as_it_is(frozen: int) -> None:
    model = collected("CnnPolicy", "image", policy_kwargs={"share_features_extractor": False})
    model.policy.vf_features_extractor.get_submodule(f"cnn.{frozen}").requires_grad_(False)
    batch = batch_of(model)
    parameters = critic_parameters(model.policy, reached(model.policy, batch))
    loss = th.nn.functional.mse_loss(model.policy.predict_values(batch.states.observations).flatten(), batch.returns)
    expected = th.autograd.grad(loss, parameters)
    assert next(epoch_of(model, parameters, batch, len(batch), 64)()) == pytest.approx(loss.item())
    for parameter, gradient in zip(parameters, expected, strict=True):
        th.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-3)


def test_the_critic_learns() -> None:
    losses = fit(collected(learning_rate=1e-2), n_epochs=30)
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_losses_are_the_mean_squared_errors_before_each_step() -> None:
    model = collected()
    batch = batch_of(model)
    with th.no_grad():
        values = model.policy.predict_values(batch.states.observations).flatten()
    expected = (values - batch.returns).square().mean().item()
    model.batch_size = 64
    assert fit(model, n_epochs=1) == pytest.approx([expected], rel=1e-5)


def test_max_grad_norm_bounds_the_critics_gradient() -> None:
    before_after = []
    for max_grad_norm in (None, 1e-3):
        kwargs = {"optimizer_class": th.optim.SGD}
        model = collected(learning_rate=0.1, policy_kwargs=kwargs)
        model.batch_size = 64
        before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
        fit(model, n_epochs=1, max_grad_norm=max_grad_norm)
        after = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        before_after.append((after - before).norm().item())
    assert before_after[1] == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert before_after[0] > 10 * before_after[1]


def test_a_mini_batch_with_a_non_finite_loss_is_skipped() -> None:
    model = collected()
    model.rollout_buffer.returns[:32] = np.nan
    model.batch_size = 32
    before = state(model.policy)
    np.random.seed(0)  # noqa: NPY002
    losses = fit(model, n_epochs=1)
    assert len(losses) == 2
    assert not np.isfinite(losses).any()
    assert moved(before, model.policy) == set()
    model.rollout_buffer.returns[:] = 1.0
    model.rollout_buffer.returns[0] = np.nan
    model.batch_size = 16
    losses = fit(model, n_epochs=1)
    assert len(losses) == 4
    assert np.isfinite(losses).sum() == 3
    assert moved(before, model.policy) == VALUE_HEAD | VALUE_MLP
    assert th.isfinite(th.nn.utils.parameters_to_vector(model.policy.parameters())).all()


def test_a_frozen_critic_is_left_alone() -> None:
    model = collected()
    for name, parameter in model.policy.named_parameters():
        parameter.requires_grad_("value_net" not in name)
    before = state(model.policy)
    assert fit(model) == []
    assert moved(before, model.policy) == set()


def test_optimizer_settings_stay_sb3s() -> None:
    model = collected()
    before = {key: value for key, value in model.policy.optimizer.param_groups[0].items() if key != "params"}
    fit(model)
    after = {key: value for key, value in model.policy.optimizer.param_groups[0].items() if key != "params"}
    assert after == before
    assert all(parameter.grad is None for parameter in model.policy.parameters())


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [(th.optim.Adam, {}), (th.optim.AdamW, {}), (th.optim.Adam, {"decoupled_weight_decay": True})],
)
@pytest.mark.parametrize("learn_before", [False, True])
def test_the_kernel_alone_does_what_the_optimizer_does(
    optimizer: Any, settings: dict[str, Any], learn_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for serves in (True, False):
        model = collected(policy_kwargs={"optimizer_class": optimizer, "optimizer_kwargs": {"weight_decay": 0.01, **settings}})
        with monkeypatch.context() as patch:
            if not serves:
                patch.setattr(_AdamKernel, "serves", lambda *_: False)
            np.random.seed(2)  # noqa: NPY002
            for _ in range(2 if learn_before else 1):
                fit(model)
        states.append((state(model.policy), model.policy.optimizer.state_dict()))
    (weights_a, optimizer_a), (weights_b, optimizer_b) = states
    assert all(th.equal(weights_a[name], weights_b[name]) for name in weights_a)
    assert optimizer_a["param_groups"] == optimizer_b["param_groups"]
    assert optimizer_a["state"].keys() == optimizer_b["state"].keys()
    for index, values in optimizer_a["state"].items():
        assert all(th.equal(value, optimizer_b["state"][index][name]) for name, value in values.items())


@pytest.mark.parametrize("register", [register_optimizer_step_pre_hook, register_optimizer_step_post_hook])
def test_hooks_on_all_optimizers_see_every_step(register: Callable[..., Any]) -> None:
    model, steps = collected(), []
    handle = register(lambda optimizer, args, kwargs: steps.append(optimizer))
    try:
        n_losses = len(fit(model))
    finally:
        handle.remove()
    assert steps == [model.policy.optimizer] * n_losses


def test_a_patched_step_takes_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, step = [], th.optim.Adam.step

    def counted(self: th.optim.Adam, *args: Any) -> Any:
        steps.append(self)
        return step(self, *args)

    model = collected()
    monkeypatch.setattr(th.optim.Adam, "step", counted)
    n_losses = len(fit(model))
    assert len(steps) == n_losses > 1


def column_major(weight: th.Tensor) -> th.Tensor:
    return weight.t().contiguous().t()


def part_of_a_larger_one(weight: th.Tensor) -> th.Tensor:
    return th.cat([weight, th.full((len(weight), 3), 7.0)], dim=1)[:, : weight.shape[1]]


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("lay_out", [column_major, part_of_a_larger_one])
def test_the_layout_of_a_weight_changes_nothing(by_hand: bool, lay_out: Callable[[th.Tensor], th.Tensor]) -> None:
    kwargs: dict[str, Any] = {} if by_hand else {"rollout_buffer_class": OwnBuffer}
    plain, laid_out = collected(**kwargs), collected(**kwargs)
    weight = laid_out.policy.get_parameter("mlp_extractor.value_net.0.weight")
    weight.data = lay_out(weight.data)
    for model in (plain, laid_out):
        np.random.seed(2)  # noqa: NPY002
        fit(model)
    for name, value in plain.policy.state_dict().items():
        th.testing.assert_close(laid_out.policy.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
    storage = th.empty(0).set_(weight.data.untyped_storage())
    if lay_out is part_of_a_larger_one:
        assert (storage.view(len(weight), -1)[:, -3:] == 7.0).all()  # memory that is not the policy's


class WithUnusedLayer(ActorCriticPolicy):
    """Has a layer that neither the actor nor the critic uses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unused = th.nn.Linear(2, 2)
        self.optimizer = th.optim.Adam(self.parameters(), lr=1e-3)


@pytest.mark.parametrize("policy", ["MlpPolicy", WithUnusedLayer])
def test_a_frozen_critic_beside_an_unused_layer_is_left_alone(policy: Any) -> None:
    model = collected(policy)
    model.policy.another = th.nn.Linear(2, 2)
    for name, parameter in model.policy.named_parameters():
        parameter.requires_grad_("value_net" not in name)
    before = state(model.policy)
    assert len(fit(model)) == 3 * 4
    assert moved(before, model.policy) == set()


def test_an_unused_layer_stays_as_it_is() -> None:
    model = collected(WithUnusedLayer)
    # moments of every parameter, as a checkpoint of another algorithm may hold them
    give_moments(model)
    before = state(model.policy)
    fit(model)
    assert moved(before, model.policy) == VALUE_HEAD | VALUE_MLP
