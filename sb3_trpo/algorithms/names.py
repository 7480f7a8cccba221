"""The names of the algorithms in RL Zoo and on the command line."""

from sb3_trpo.algorithms.dual import DualTRPO
from sb3_trpo.algorithms.kl_penalty import KLPenaltyTRPO
from sb3_trpo.algorithms.maskable import MaskableTRPO
from sb3_trpo.algorithms.maskable_recurrent import MaskableRecurrentTRPO
from sb3_trpo.algorithms.natural_policy_gradient import NaturalPolicyGradient
from sb3_trpo.algorithms.recurrent import RecurrentTRPO
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.algorithms.vine import VineTRPO

ALGORITHMS: dict[str, type[TRPO]] = {
    "trpo": TRPO,
    "vine_trpo": VineTRPO,
    "npg": NaturalPolicyGradient,
    "kl_penalty_trpo": KLPenaltyTRPO,
    "dual_trpo": DualTRPO,
    "maskable_trpo": MaskableTRPO,
    "trpo_lstm": RecurrentTRPO,
    "maskable_trpo_lstm": MaskableRecurrentTRPO,
}
"""The classes by their names."""
