"""The split timer times what its table names, and fails where it would print a silent 0."""

import pytest

from benchmarks.common.parts import PARTS, split
from benchmarks.common.patching import resolve
from benchmarks.speed import profile
from sb3_trpo import TRPO


@pytest.mark.parametrize("name", PARTS.values(), ids=PARTS.keys())
def test_the_table_resolves(name: str) -> None:
    owner, attribute = resolve(name)
    assert callable(getattr(owner, attribute))


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "CartPole-v1"])
def test_a_short_run_records_every_part(env_id: str) -> None:
    before = {name: getattr(*resolve(name)) for name in PARTS.values()}
    rows = dict(profile(env_id, rounds=1, n_steps=256))
    assert list(rows) == [*PARTS, "rest", "all"]
    assert all(value > 0.0 for value in rows.values())
    assert sum(rows.values()) == pytest.approx(2.0 * rows["all"])
    assert {name: getattr(*resolve(name)) for name in PARTS.values()} == before


def test_a_part_that_is_never_called_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "saving", "stable_baselines3.common.base_class.BaseAlgorithm.save")
    model = TRPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64, seed=0)
    with (
        pytest.raises(RuntimeError, match=r"never called.*: saving \(stable_baselines3.*save\); see benchmarks.*PARTS"),
        split(),
    ):
        model.learn(64)


def test_a_part_that_has_moved_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "actor", "sb3_trpo.rollout.numpy_actor.NumpyActor.perform")
    before = TRPO._fit_critic
    with pytest.raises(LookupError, match=r"NumpyActor\.perform` has moved"), split():
        pass
    assert TRPO._fit_critic is before


def test_an_error_of_the_run_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), split():
        raise ZeroDivisionError
