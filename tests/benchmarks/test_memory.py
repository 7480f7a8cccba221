"""The parts of the comparison with RecurrentPPO."""

import pytest
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_checker import check_env

from benchmarks.memory import Images, image_model, rollout_bytes, whole_run
from sb3_trpo import RecurrentTRPO


@pytest.mark.filterwarnings("ignore")
def test_the_images_are_an_environment() -> None:
    check_env(Images())


def test_bytes_of_a_rollout_are_counted_with_the_states() -> None:
    ours, theirs = (rollout_bytes(cls, 64, 2, 8) for cls in (RecurrentTRPO, RecurrentPPO))
    of_states = 4 * 64 * 2 * 8 * 4  # h and c of actor and critic at every step, float32
    assert theirs > of_states
    assert ours == theirs - of_states + 2 * 4 * 2 * 8 * 4  # ours are kept twice


def test_a_whole_run_is_timed_in_steps_a_second() -> None:
    model = image_model(RecurrentTRPO, n_steps=4, batch_size=16)
    result = whole_run((model, model), steps=16, rounds=1)
    assert result.ours > 0.0
    assert model.num_timesteps == 16
