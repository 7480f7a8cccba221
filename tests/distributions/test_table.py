"""KL(old‖new) and the Fisher metric of every family, against torch, Monte Carlo and automatic differentiation."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
    SquashedDiagGaussianDistribution,
    StateDependentNoiseDistribution,
)

from sb3_trpo.distributions import table
from sb3_trpo.distributions.beta import Beta, BetaDistribution
from sb3_trpo.distributions.clipped_gaussian import ClippedGaussian, ClippedGaussianDistribution
from sb3_trpo.distributions.discrete import Bernoulli, Categorical
from sb3_trpo.distributions.family import DistributionFamily, Parameters
from sb3_trpo.distributions.gaussian import Gaussian
from sb3_trpo.distributions.sample_estimate import SampleEstimate
from sb3_trpo.distributions.table import distribution_family, register_family
from sb3_trpo.distributions.validation import unchecked_distributions
from tests.helpers import StudentT, draw, jacobian, torch_distributions, torch_kl

Make = Callable[..., Distribution]

N_STATES = 3
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)


def normal(*shape: int, seed: int, copies: int = 1) -> th.Tensor:
    """Normal numbers; each row is repeated ``copies`` times."""
    numbers = th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)
    return numbers.repeat_interleave(copies, dim=0)


def gaussian(seed: int, copies: int = 1) -> Distribution:
    mean, log_std = normal(N_STATES, 2, seed=seed, copies=copies), 0.5 * normal(2, seed=seed + 1)
    return DiagGaussianDistribution(2).proba_distribution(mean, log_std)


LOW, HIGH = th.tensor([-0.5, -2.0], dtype=th.float64), th.tensor([0.5, 0.3], dtype=th.float64)


def clipped_gaussian(seed: int, copies: int = 1) -> Distribution:
    mean, log_std = normal(N_STATES, 2, seed=seed, copies=copies), 0.5 * normal(2, seed=seed + 1)
    return ClippedGaussianDistribution(LOW, HIGH).proba_distribution(mean, log_std)


def squashed_gaussian(seed: int, copies: int = 1) -> Distribution:
    mean, log_std = normal(N_STATES, 2, seed=seed, copies=copies), 0.5 * normal(2, seed=seed + 1)
    return SquashedDiagGaussianDistribution(2).proba_distribution(mean, log_std)


def gsde(seed: int, copies: int = 1, squash: bool = False) -> Distribution:
    mean, log_std = normal(N_STATES, 2, seed=seed, copies=copies), 0.5 * normal(4, 2, seed=seed + 1)
    latent = normal(N_STATES, 4, seed=9, copies=copies)
    return StateDependentNoiseDistribution(2, squash_output=squash).proba_distribution(mean, log_std, latent)


def squashed_gsde(seed: int, copies: int = 1) -> Distribution:
    return gsde(seed, copies, squash=True)


def categorical(seed: int, copies: int = 1) -> Distribution:
    return CategoricalDistribution(4).proba_distribution(normal(N_STATES, 4, seed=seed, copies=copies))


def multi_categorical(seed: int, copies: int = 1) -> Distribution:
    return MultiCategoricalDistribution([2, 3, 4]).proba_distribution(normal(N_STATES, 9, seed=seed, copies=copies))


def bernoulli(seed: int, copies: int = 1) -> Distribution:
    return BernoulliDistribution(3).proba_distribution(normal(N_STATES, 3, seed=seed, copies=copies))


def beta(seed: int, copies: int = 1) -> Distribution:
    return BetaDistribution(2).proba_distribution(normal(N_STATES, 4, seed=seed, copies=copies))


def student_t(seed: int, copies: int = 1) -> Distribution:
    return StudentT(2).proba_distribution(normal(N_STATES, 2, seed=seed, copies=copies), 0.5 * normal(2, seed=seed + 1))


CLOSED_FORM: list[Make] = [gaussian, squashed_gaussian, gsde, squashed_gsde, categorical, multi_categorical, bernoulli, beta]
EVERY: list[Make] = [*CLOSED_FORM, clipped_gaussian, student_t]


def parameters(distribution: Distribution) -> Parameters:
    actions = th.zeros(N_STATES, 2, dtype=th.float64)  # only the sample estimate reads them
    return distribution_family(distribution).parameters(distribution, actions)


def kl(old: Distribution, new: Distribution) -> th.Tensor:
    return distribution_family(old).kl_old_new(parameters(old), parameters(new))


@pytest.mark.parametrize("make", EVERY)
def test_kl_of_a_distribution_with_itself_is_exactly_zero(make: Make) -> None:
    assert kl(make(0), make(0)).tolist() == [0.0] * N_STATES


@pytest.mark.parametrize("make", CLOSED_FORM)
def test_closed_form_is_torchs_kl_summed_over_the_dimensions(make: Make) -> None:
    old, new = torch_distributions(make(0)), torch_distributions(make(10))
    th.testing.assert_close(kl(make(0), make(10)), torch_kl(old, new), rtol=1e-12, atol=1e-14)
    assert not th.allclose(torch_kl(old, new), torch_kl(new, old), rtol=1e-2)  # so the direction matters here


@pytest.mark.parametrize("make", [*CLOSED_FORM, clipped_gaussian])
def test_closed_form_is_the_mean_log_ratio_of_samples_of_the_old(make: Make) -> None:
    th.manual_seed(0)
    n_samples = 50_000
    old, new = make(0, n_samples), make(10, n_samples)
    actions = draw(old)
    log_ratio = (old.log_prob(actions) - new.log_prob(actions)).view(N_STATES, n_samples)
    error = (log_ratio.mean(dim=1) - kl(make(0), make(10))).abs()
    standard_error = log_ratio.std(dim=1) / math.sqrt(n_samples)
    assert (error < 4.0 * standard_error).all()


@pytest.mark.parametrize("make", [gaussian, categorical, bernoulli])
def test_sample_estimate_is_unbiased(make: Make) -> None:
    th.manual_seed(0)
    n_samples = 50_000
    old, new = make(0, n_samples), make(1, n_samples)
    actions = draw(old)
    family = SampleEstimate()
    estimate = family.kl_old_new(family.parameters(old, actions), family.parameters(new, actions)).view(N_STATES, n_samples)
    error = (estimate.mean(dim=1) - kl(make(0), make(1))).abs()
    assert (error < 4.0 * estimate.std(dim=1) / math.sqrt(n_samples)).all()


def one_state(*parameters: list[float]) -> Parameters:
    return tuple(th.tensor([values], dtype=th.float64) for values in parameters)


@pytest.mark.parametrize(
    ("family", "p", "q", "kl_p_q", "kl_q_p"),
    [
        # the standard deviations 1 and 2: log 2 + 1/8 - 1/2, and the other way round -log 2 + 2 - 1/2
        (Gaussian(), one_state([0.0], [1.0]), one_state([0.0], [2.0]), math.log(2) - 0.375, 1.5 - math.log(2)),
        # the probabilities (1/2, 1/2) and (1/4, 3/4)
        (
            Categorical(),
            one_state([math.log(0.5), math.log(0.5)]),
            one_state([math.log(0.25), math.log(0.75)]),
            0.5 * math.log(4 / 3),
            0.25 * math.log(0.5) + 0.75 * math.log(1.5),
        ),
        # the probabilities 1/2 and 3/4
        (
            Bernoulli(),
            one_state([0.0]),
            one_state([math.log(3.0)]),
            0.5 * math.log(4 / 3),
            0.25 * math.log(0.5) + 0.75 * math.log(1.5),
        ),
        # one action, half as likely under the new: r - 1 - log r at r = 1/2, and at r = 2
        (SampleEstimate(), (th.zeros(1),), (th.tensor([-math.log(2.0)]),), math.log(2) - 0.5, 1 - math.log(2)),
    ],
)
def test_old_is_the_first_argument(
    family: DistributionFamily, p: Parameters, q: Parameters, kl_p_q: float, kl_q_p: float
) -> None:
    assert family.kl_old_new(p, q).item() == pytest.approx(kl_p_q, rel=1e-6)
    assert family.kl_old_new(q, p).item() == pytest.approx(kl_q_p, rel=1e-6)
    assert abs(kl_p_q - kl_q_p) > 0.01


def test_kl_of_a_beta_has_its_closed_form() -> None:
    # Beta(2, 2) and Beta(3, 2): log B(3, 2) - log B(2, 2) - ψ(2) + ψ(4) with B(2, 2) = 1/6, B(3, 2) = 1/12, ψ(4) - ψ(2) = 5/6
    one, two = math.log(math.e - 1.0), math.log(math.exp(2.0) - 1.0)  # softplus of these is 1 and 2
    old, new = one_state([one], [one]), one_state([two], [one])
    assert Beta().kl_old_new(old, new).item() == pytest.approx(5.0 / 6.0 - math.log(2.0), rel=1e-12)


def test_small_kl_of_a_beta_keeps_its_digits_in_float32() -> None:
    def kl_in(dtype: th.dtype) -> float:
        u, v = (th.tensor([[x]], dtype=dtype) for x in (30.0, 20.0))
        return Beta().kl_old_new((u, v), (u + 0.0625, v - 0.0625)).item()

    assert kl_in(th.float32) == pytest.approx(kl_in(th.float64), rel=1e-6)


def test_kl_of_a_joint_action_is_the_sum_over_its_dimensions() -> None:
    old, new = one_state([0.0], [1.0]), one_state([0.5], [2.0])
    for dimensions in (2, 17):
        joint_old, joint_new = (tuple(part.expand(1, dimensions) for part in parts) for parts in (old, new))
        one, many = Gaussian().kl_old_new(old, new).item(), Gaussian().kl_old_new(joint_old, joint_new).item()
        assert many == pytest.approx(dimensions * one, rel=1e-12)


def test_small_kl_keeps_its_digits_in_float32() -> None:
    # 1/2 (ratio² - 1) - log ratio would cancel to 0 or to noise; its true value is (log ratio)²
    old, new = (th.zeros(1, 1), th.ones(1, 1)), (th.zeros(1, 1), th.full((1, 1), 1.001))
    exact = math.log(1.001) + 0.5 / 1.001**2 - 0.5
    assert Gaussian().kl_old_new(old, new).item() == pytest.approx(exact, rel=1e-3)


def metric_matrix(family: DistributionFamily, at: Parameters) -> th.Tensor:
    """The metric of all parameters as one matrix, column by column."""
    sizes = [part.numel() for part in at]
    columns, product = [], family.metric(at)
    for unit in th.eye(sum(sizes), dtype=th.float64):
        tangent = tuple(t.view_as(part) for t, part in zip(th.split(unit, sizes), at, strict=True))
        columns.append(th.cat([part.flatten() for part in product(tangent)]))
    return th.stack(columns, dim=1)


@pytest.mark.parametrize("make", EVERY)
def test_metric_is_the_hessian_of_the_kl_where_new_is_old(make: Make) -> None:
    old = parameters(make(0))
    family = distribution_family(make(0))
    sizes = [part.numel() for part in old]

    def total_kl(flat: th.Tensor) -> th.Tensor:
        new = tuple(t.view_as(part) for t, part in zip(th.split(flat, sizes), old, strict=True))
        if isinstance(family, Categorical):  # its parameters are normalised logits
            new = tuple(th.log_softmax(logits, dim=1) for logits in new)
        return family.kl_old_new(old, new).sum()

    flat = th.cat([part.flatten() for part in old]).requires_grad_()
    hessian = jacobian(jacobian(total_kl(flat), [flat]), [flat])
    th.testing.assert_close(metric_matrix(family, old), hessian, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", EVERY)
def test_metric_is_symmetric_and_positive_semi_definite(make: Make) -> None:
    matrix = metric_matrix(distribution_family(make(0)), parameters(make(0)))
    th.testing.assert_close(matrix, matrix.T)
    assert th.linalg.eigvalsh(matrix).min() > -1e-12


def test_metric_of_a_gaussian_has_its_closed_form() -> None:
    at, tangent = one_state([0.3], [2.0]), one_state([1.0], [1.0])
    assert [part.item() for part in Gaussian().metric(at)(tangent)] == [0.25, 0.5]  # 1/σ² and 2/σ²


def test_a_masked_action_adds_nothing() -> None:
    inner_old, inner_new, tangent = (normal(N_STATES, 3, seed=seed).log_softmax(dim=1) for seed in (0, 1, 2))
    mask = th.full((N_STATES, 1), -th.inf, dtype=th.float64)
    old, new = th.cat([inner_old, mask], dim=1), th.cat([inner_new, mask], dim=1)
    family = Categorical()
    th.testing.assert_close(family.kl_old_new((old,), (new,)), family.kl_old_new((inner_old,), (inner_new,)))
    assert family.kl_old_new((inner_old,), (inner_old + mask,)).tolist() == [math.inf] * N_STATES  # a mask that is new
    (product,) = family.metric((old,))((th.cat([tangent, tangent[:, :1]], dim=1),))
    (expected,) = family.metric((inner_old,))((tangent,))
    th.testing.assert_close(product, th.cat([expected, th.zeros(N_STATES, 1, dtype=th.float64)], dim=1))


LOGITS = st.floats(-1e30, 1e30)
TWO_STATES_OF_THREE = st.lists(LOGITS, min_size=6, max_size=6).map(lambda x: th.tensor(x, dtype=th.float64).view(2, 3))


@PROPERTY
@given(TWO_STATES_OF_THREE, TWO_STATES_OF_THREE)
def test_discrete_kl_is_finite_and_not_negative_for_extreme_logits(old: th.Tensor, new: th.Tensor) -> None:
    normalised = (th.log_softmax(old, dim=1),), (th.log_softmax(new, dim=1),)
    for values in (Categorical().kl_old_new(*normalised), Bernoulli().kl_old_new((old,), (new,))):
        assert th.isfinite(values).all()
        assert (values > -1e-14).all()


@PROPERTY
@given(TWO_STATES_OF_THREE, TWO_STATES_OF_THREE)
def test_discrete_metric_is_finite_and_has_no_negative_curvature_for_extreme_logits(at: th.Tensor, tangent: th.Tensor) -> None:
    direction = tangent / 1e30
    for family, point in ((Categorical(), th.log_softmax(at, dim=1)), (Bernoulli(), at)):
        (product,) = family.metric((point,))((direction,))
        assert (direction * product).sum().item() > -1e-14


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5, 1e7, 1e30])
def test_large_logits_in_float32_do_not_make_the_kl_negative(size: float) -> None:
    # torch subtracts their logsumexp, whose last digits are lost: the probabilities need not add up to 1
    large, small = (CategoricalDistribution(2).proba_distribution(th.tensor([[x, x + 1.0]])) for x in (size, 0.0))
    assert min(kl(large, small).item(), kl(small, large).item()) > -1e-6


MEANS = st.floats(-1e3, 1e3)
STDS = st.floats(1e-6, 1e6)


@PROPERTY
@given(MEANS, STDS, MEANS, STDS)
def test_gaussian_kl_is_finite_and_not_negative(mean_old: float, std_old: float, mean_new: float, std_new: float) -> None:
    value = Gaussian().kl_old_new(one_state([mean_old], [std_old]), one_state([mean_new], [std_new])).item()
    assert math.isfinite(value)
    assert value > -1e-14


@PROPERTY
@given(MEANS, STDS, MEANS, STDS)
def test_clipping_never_adds_kl(mean_old: float, std_old: float, mean_new: float, std_new: float) -> None:
    old, new = one_state([mean_old], [std_old]), one_state([mean_new], [std_new])
    bound = th.ones(1, dtype=th.float64)
    clipped, whole = ClippedGaussian(-bound, bound).kl_old_new(old, new).item(), Gaussian().kl_old_new(old, new).item()
    assert -1e-12 < clipped <= whole * (1.0 + 1e-9) + 1e-9


@pytest.mark.parametrize("make", [gaussian, squashed_gaussian])
def test_far_bounds_clip_nothing(make: Make) -> None:
    far = th.full((2,), 1e3, dtype=th.float64)
    (old, new), clipped = (parameters(make(seed)) for seed in (0, 10)), ClippedGaussian(-far, far)
    th.testing.assert_close(clipped.kl_old_new(old, new), Gaussian().kl_old_new(old, new))
    th.testing.assert_close(metric_matrix(clipped, old), metric_matrix(Gaussian(), old))


def test_where_every_action_is_clipped_there_is_no_kl() -> None:
    bound = th.ones(1)
    family, one = ClippedGaussian(-bound, bound), th.ones(1, 1)
    old, new = (9.0 * one, one), (8.0 * one, 1.1 * one)
    assert abs(family.kl_old_new(old, new).item()) < 1e-6 < Gaussian().kl_old_new(old, new).item()
    assert all(part.abs().item() < 1e-6 for part in family.metric(old)((one, one)))


def test_small_clipped_kl_keeps_its_digits_in_float32() -> None:
    def kl_in(dtype: th.dtype) -> float:
        bound, mean, std = (th.tensor([[x]], dtype=dtype) for x in (1.0, 0.8, 0.5))
        return ClippedGaussian(-bound, bound).kl_old_new((mean, std), (mean + 0.003, 1.003 * std)).item()

    assert kl_in(th.float32) == pytest.approx(kl_in(th.float64), abs=3e-7)


@PROPERTY
@given(st.floats(-600.0, 600.0), st.floats(-600.0, 600.0))
def test_sample_estimate_is_finite_and_never_negative(log_prob_old: float, log_prob_new: float) -> None:
    old, new = th.tensor([log_prob_old], dtype=th.float64), th.tensor([log_prob_new], dtype=th.float64)
    value = SampleEstimate().kl_old_new((old,), (new,)).item()
    assert value >= 0.0
    assert math.isfinite(value) or log_prob_new - log_prob_old > 700.0  # exp overflows: no trial is accepted there


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (gaussian, Gaussian),
        (clipped_gaussian, ClippedGaussian),
        (squashed_gaussian, Gaussian),
        (gsde, Gaussian),
        (squashed_gsde, Gaussian),
        (beta, Beta),
        (categorical, Categorical),
        (multi_categorical, Categorical),
        (bernoulli, Bernoulli),
        (student_t, SampleEstimate),
    ],
)
def test_sb3s_distributions_have_a_closed_form_and_others_the_estimate(make: Make, family: type[DistributionFamily]) -> None:
    assert type(distribution_family(make(0))) is family


class Renamed(DiagGaussianDistribution):
    """A subclass that draws actions in another way, with the same probabilities."""

    def sample(self) -> th.Tensor:
        return self.mode()


class Tempered(DiagGaussianDistribution):
    """A subclass that overrides the probabilities."""

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        return 0.5 * super().log_prob(actions)


class Laplace(DiagGaussianDistribution):
    """A subclass that swaps the torch distribution and inherits the rest."""

    def proba_distribution(self, mean_actions: th.Tensor, log_std: th.Tensor) -> "Laplace":
        self.distribution = th.distributions.Laplace(mean_actions, log_std.exp().expand_as(mean_actions))  # type: ignore[assignment]
        return self


def test_a_subclass_keeps_the_closed_form_unless_it_overrides_log_prob() -> None:
    mean, log_std = normal(N_STATES, 2, seed=0), normal(2, seed=1)
    assert isinstance(distribution_family(Renamed(2).proba_distribution(mean, log_std)), Gaussian)
    assert isinstance(distribution_family(Tempered(2).proba_distribution(mean, log_std)), SampleEstimate)


def test_a_subclass_with_another_torch_distribution_gets_the_estimate() -> None:
    distribution = Laplace(2).proba_distribution(normal(N_STATES, 2, seed=0), normal(2, seed=1))
    assert isinstance(distribution_family(distribution), SampleEstimate)
    (log_prob,) = parameters(distribution)
    assert th.equal(log_prob, distribution.log_prob(th.zeros(N_STATES, 2, dtype=th.float64)))


def test_parameters_keep_their_graph() -> None:
    logits = th.zeros(N_STATES, 3, requires_grad=True)
    (read,) = parameters(CategoricalDistribution(3).proba_distribution(logits))
    assert read.requires_grad


def test_unchecked_distributions_lets_nan_through_and_restores_the_check() -> None:
    nan = th.full((1,), math.nan)
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(True)
    try:
        with unchecked_distributions():
            assert th.distributions.Normal(nan, 1.0).loc.isnan().all()
        with pytest.raises(ValueError, match="loc"):
            th.distributions.Normal(nan, 1.0)
        with pytest.raises(KeyboardInterrupt), unchecked_distributions():
            raise KeyboardInterrupt
        assert th.distributions.Distribution._validate_args
    finally:
        th.distributions.Distribution.set_default_validate_args(before)


def test_overlapping_threads_restore_the_check() -> None:
    first, second = unchecked_distributions(), unchecked_distributions()
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(True)
    try:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not th.distributions.Distribution._validate_args
        second.__exit__(None, None, None)
        assert th.distributions.Distribution._validate_args
    finally:
        th.distributions.Distribution.set_default_validate_args(before)


@pytest.fixture
def table_of_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_FAMILIES", dict(table._FAMILIES))


class Halved(Categorical):
    """A custom family."""


@pytest.mark.usefixtures("table_of_families")
def test_a_registered_family_replaces_the_estimate() -> None:
    assert isinstance(distribution_family(student_t(0)), SampleEstimate)
    register_family(type(student_t(0)), lambda _: Halved())
    assert isinstance(distribution_family(student_t(0)), Halved)
    register_family(type(student_t(0)), lambda _: Halved(), holds=th.distributions.Categorical)
    assert isinstance(distribution_family(student_t(0)), SampleEstimate)  # it holds another torch distribution


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((th.distributions.Beta, lambda _: Halved()), "`distribution_class` must be a subclass of SB3's Distribution, not"),
        ((3, lambda _: Halved()), "`distribution_class` must be a subclass of SB3's Distribution, not 3"),
        ((Laplace, Halved()), "`make_family` must be a function of the distribution, not"),
    ],
)
def test_bad_arguments_are_not_registered(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        register_family(*arguments)


@pytest.mark.usefixtures("table_of_families")
def test_a_factory_that_makes_no_family_is_refused_by_name() -> None:
    register_family(Laplace, lambda _: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="`make_family` of Laplace must return a DistributionFamily, not None"):
        distribution_family(Laplace(2))
