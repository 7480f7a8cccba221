"""Forbidden actions have probability 0 and no influence; the others are those of a smaller space."""

import math
from typing import Any

import pytest
import torch as th
from sb3_contrib.common.maskable import distributions as contrib
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from torch.autograd.functional import hessian

from sb3_trpo.distributions.discrete import Categorical, ContribCategorical, MaskedBernoulli
from sb3_trpo.distributions.masked import MaskedBernoulliDistribution, masked
from sb3_trpo.distributions.table import distribution_family

MASK = th.tensor([[True, False, True]])
NOTHING = th.empty(0)


def categorical(logits: list[float], mask: th.Tensor = MASK) -> Any:
    return masked(CategoricalDistribution(len(logits)), mask).proba_distribution(th.tensor([logits], dtype=th.float64))


def kl(old: Distribution, new: Distribution) -> th.Tensor:
    family = distribution_family(old)
    return family.kl_old_new(family.parameters(old, NOTHING), family.parameters(new, NOTHING))


def test_known_answers() -> None:
    old = categorical([1.0, 2.0, 3.0])
    assert old.distribution.probs[0].tolist() == pytest.approx([0.119203, 0.0, 0.880797], abs=1e-6)
    assert old.entropy().item() == pytest.approx(0.365334, abs=1e-6)
    assert kl(old, categorical([2.0, 2.0, 3.0])).item() == pytest.approx(0.0671308, abs=1e-7)
    all_true = th.ones(1, 3, dtype=th.bool)
    unmasked = kl(categorical([1.0, 2.0, 3.0], all_true), categorical([2.0, 2.0, 3.0], all_true))
    assert unmasked.item() == pytest.approx(0.0538082, abs=1e-7)
    tangent = th.tensor([[1.0, 5.0, 0.0]], dtype=th.float64)
    family = distribution_family(old)
    product = family.metric(family.parameters(old, NOTHING))((tangent,))[0][0].tolist()
    assert product == pytest.approx([0.104994, 0.0, -0.104994], abs=1e-6)
    assert product[1] == 0.0


def test_a_low_logit_of_an_allowed_action_keeps_its_probability() -> None:
    only = categorical([-3e8, 0.0, 5.0], th.tensor([[True, False, False]]))
    assert only.distribution.probs[0].tolist() == [1.0, 0.0, 0.0]
    assert only.log_prob(th.tensor([1])).item() == -math.inf
    assert (only.sample().item(), only.mode().item(), only.entropy().item()) == (0, 0, 0.0)


def test_a_metric_ignores_tangents_of_forbidden_values_that_are_not_finite() -> None:
    at = (th.tensor([[0.5, 0.5]]).log(), th.tensor([[0.0, -math.inf, 0.0]]).log_softmax(1))
    tangent = (th.tensor([[1.0, -1.0]]), th.tensor([[1.0, math.inf, -1.0]]))
    first, second = Categorical().metric(at)(tangent)
    assert first.tolist() == [[0.5, -0.5]]
    assert second.tolist() == [[0.5, 0.0, -0.5]]


@pytest.mark.parametrize("size", [3, 40])  # few and many forbidden values: two ways to add up
def test_the_kl_is_that_of_the_smaller_space(size: int) -> None:
    generator = th.Generator().manual_seed(0)
    logits = th.randn(2, 5, size, generator=generator, dtype=th.float64)
    mask = th.zeros(5, size, dtype=th.bool)
    mask[:, [0, 2]] = True
    both = [masked(CategoricalDistribution(size), mask).proba_distribution(part) for part in logits]
    small = [CategoricalDistribution(2).proba_distribution(part[:, [0, 2]]) for part in logits]
    th.testing.assert_close(kl(both[0], both[1]), kl(small[0], small[1]))
    th.testing.assert_close(both[0].entropy(), small[0].entropy())
    assert kl(both[0], both[0]).tolist() == [0.0] * 5


def test_a_kl_with_an_old_policy_that_forbids_more_is_still_right() -> None:
    old = categorical([1.0, 2.0, 3.0], th.tensor([[True, False, False]]))
    new = categorical([1.0, 2.0, 3.0], th.tensor([[True, True, True]]))
    assert kl(old, new).item() == pytest.approx(-new.log_prob(th.tensor([0])).item())
    assert kl(new, old).item() == math.inf


def of_kind(kind: str, logits: th.Tensor, masks: th.Tensor) -> Distribution:
    plain = MultiCategoricalDistribution([2, 3]) if kind == "multi" else BernoulliDistribution(3)
    return masked(plain, masks).proba_distribution(logits)


MULTI_MASKS = th.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]).bool()
PAIR_MASKS = th.tensor([[1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]]).bool()


def as_categoricals(kind: str, logits: th.Tensor, masks: th.Tensor) -> list[th.distributions.Categorical]:
    """The same distribution as a product of torch's."""
    if kind == "binary":
        logits, sizes = th.stack([th.zeros_like(logits), logits], dim=2).flatten(1), [2, 2, 2]
    else:
        sizes = [2, 3]
    return [th.distributions.Categorical(logits=part) for part in logits.masked_fill(~masks, -math.inf).split(sizes, dim=1)]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("kind", "masks", "n"), [("multi", MULTI_MASKS, 5), ("binary", PAIR_MASKS, 3)])
def test_several_dimensions_are_a_product_of_categoricals(kind: str, masks: th.Tensor, n: int) -> None:
    generator = th.Generator().manual_seed(0)
    logits = th.randn(2, 3, n, generator=generator, dtype=th.float64)
    old, new = (of_kind(kind, part, masks) for part in logits)
    expected = [as_categoricals(kind, part, masks) for part in logits]
    expected_kl = sum(th.distributions.kl_divergence(o, p) for o, p in zip(*expected, strict=True))
    th.testing.assert_close(kl(old, new), expected_kl)
    entropy = old.entropy()
    assert entropy is not None
    th.testing.assert_close(entropy, th.stack([part.entropy() for part in expected[0]]).sum(0))  # type: ignore[no-untyped-call]
    for _ in range(20):
        actions = old.sample()
        log_prob = th.stack([part.log_prob(actions[:, i]) for i, part in enumerate(expected[0])]).sum(0)  # type: ignore[no-untyped-call]
        th.testing.assert_close(old.log_prob(actions), log_prob)
        assert log_prob.isfinite().all()
    assert old.log_prob(old.mode()).isfinite().all()
    outside = th.tensor([[1, 0, 0]] * 3 if kind == "binary" else [[1, 0]] * 3, dtype=th.float64)
    assert old.log_prob(outside)[0].item() == -math.inf


@pytest.mark.parametrize(("kind", "masks", "n"), [("multi", MULTI_MASKS, 5), ("binary", PAIR_MASKS, 3)])
def test_metrics_are_hessians_and_forbidden_logits_do_not_matter(kind: str, masks: th.Tensor, n: int) -> None:
    logits = th.randn(3, n, generator=th.Generator().manual_seed(0), dtype=th.float64)
    old = of_kind(kind, logits, masks)
    family = distribution_family(old)
    at = family.parameters(old, NOTHING)

    def kl_to(new: th.Tensor) -> th.Tensor:
        return kl(old, of_kind(kind, new.view(3, n), masks)).sum()

    matrix = hessian(kl_to, logits.flatten())  # type: ignore[no-untyped-call]
    tangent = th.randn(3, n, generator=th.Generator().manual_seed(1), dtype=th.float64)
    parts = th.split(tangent, [part.shape[1] for part in at], dim=1)
    product = th.cat(family.metric(at)(parts), dim=1).flatten()
    th.testing.assert_close(product, matrix @ tangent.flatten(), atol=1e-7, rtol=1e-6)
    unused = ~masks if kind == "multi" else ~(masks[:, ::2] & masks[:, 1::2])
    assert unused.any()
    assert (product.view(3, n)[unused] == 0.0).all()
    moved = of_kind(kind, th.where(unused, logits + 1e3, logits), masks)
    for part, other in zip(at, family.parameters(moved, NOTHING), strict=True):
        assert th.equal(part, other)


def test_pairs_that_are_all_true_are_the_bernoulli_family() -> None:
    logits = th.randn(2, 4, 3, generator=th.Generator().manual_seed(0), requires_grad=True)
    everything = th.ones(4, 6, dtype=th.bool)
    plain = [BernoulliDistribution(3).proba_distribution(part) for part in logits]
    pairs = [masked(BernoulliDistribution(3), everything).proba_distribution(part) for part in logits]
    assert isinstance(pairs[0], MaskedBernoulliDistribution)
    assert isinstance(distribution_family(pairs[0]), MaskedBernoulli)
    assert th.equal(kl(plain[0], plain[1]), kl(pairs[0], pairs[1]))
    actions = plain[0].sample()
    results = [(d.log_prob(actions), d.entropy(), d.mode()) for d in (plain[0], pairs[0])]
    for one, other in zip(*results, strict=True):
        assert isinstance(one, th.Tensor)
        assert isinstance(other, th.Tensor)
        assert th.equal(one, other)
    gradients = [th.autograd.grad(log_prob.sum(), logits, retain_graph=True)[0] for log_prob, _, _ in results]
    assert th.equal(gradients[0], gradients[1])


@pytest.mark.parametrize(
    "theirs",
    [
        contrib.MaskableCategoricalDistribution(5),
        contrib.MaskableMultiCategoricalDistribution([2, 3]),
        contrib.MaskableBernoulliDistribution(2),
    ],
    ids=lambda theirs: type(theirs).__name__,
)
def test_sb3_contribs_distributions_have_closed_forms(theirs: Any) -> None:
    size = 4 if isinstance(theirs, contrib.MaskableBernoulliDistribution) else 5
    logits = th.randn(2, 1, size, generator=th.Generator().manual_seed(0))
    masks = th.tensor([[1, 0, 1, 1, 0][:size]]).bool()
    ours = [masked(theirs, masks).proba_distribution(part) for part in logits]
    kls = []
    for mask in (None, masks):
        family = distribution_family(theirs)
        assert isinstance(family, ContribCategorical)
        parameters = []
        for part in logits:
            theirs.proba_distribution(part).apply_masking(mask)
            parameters.append(family.parameters(theirs, NOTHING))
        kls.append(family.kl_old_new(*parameters))
    th.testing.assert_close(kls[1], kl(ours[0], ours[1]))
    assert not th.allclose(kls[0], kls[1])


def test_other_distributions_are_refused() -> None:
    class Tempered(CategoricalDistribution):
        pass

    for other in (DiagGaussianDistribution(2), Tempered(3)):
        with pytest.raises(ValueError, match="action masks need SB3's or sb3-contrib's distribution of discrete"):
            masked(other, MASK)


def test_masks_of_other_states_are_refused() -> None:
    with pytest.raises(ValueError, match="there must be one action mask for each of the 2 observations, not 1"):
        masked(CategoricalDistribution(3), MASK).proba_distribution(th.zeros(2, 3))
    with pytest.raises(ValueError, match="there must be one action mask for each of the 2 observations, not 1"):
        masked(BernoulliDistribution(1), MASK[:, :2]).proba_distribution(th.zeros(2, 1))
