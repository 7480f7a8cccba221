"""Settings that several experiments share."""

from typing import Any

FIXED_BOUND: dict[str, Any] = {
    "target_kl": 0.03,
    "cg_damping": 1.0,
    "scale_target_kl": False,
    "policy_kwargs": {"log_std_init": -1.0},
}
"""A bound, a damping and a first standard deviation that are the same for every task and rollout."""
