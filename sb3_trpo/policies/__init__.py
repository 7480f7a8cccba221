"""The policies behind the aliases, and networks for images."""

from sb3_trpo.policies.aliases import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.beta import BetaCnnPolicy, BetaMlpPolicy, BetaMultiInputPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from sb3_trpo.policies.maskable import MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy
from sb3_trpo.policies.recurrent import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy

__all__ = [
    "BetaCnnPolicy",
    "BetaMlpPolicy",
    "BetaMultiInputPolicy",
    "CnnLstmPolicy",
    "CnnPolicy",
    "MaskableCnnPolicy",
    "MaskableMlpPolicy",
    "MaskableMultiInputPolicy",
    "MlpLstmPolicy",
    "MlpPolicy",
    "MultiInputLstmPolicy",
    "MultiInputPolicy",
    "NormalizedCNN",
    "PaperCNN",
    "PaperCnnPolicy",
]

_BETA = (BetaCnnPolicy, BetaMlpPolicy, BetaMultiInputPolicy)
_OTHERS = (MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy, CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy)
for _public in (CnnPolicy, MultiInputPolicy, NormalizedCNN, PaperCNN, PaperCnnPolicy, *_BETA, *_OTHERS):
    _public.__module__ = __name__  # saved models refer to classes by module: to this one, wherever the file is
