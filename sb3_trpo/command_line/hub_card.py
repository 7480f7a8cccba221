"""The card of a model on the Hugging Face hub: how to install this package, use the model, and read its hyperparameters."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CARD = """
# **{cls}** Agent playing **{env}**

This is a trained model of a **{cls}** agent playing **{env}**, made with sb3-trpo, Trust Region Policy Optimization for
[Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3), and the
[RL Zoo](https://github.com/DLR-RM/rl-baselines3-zoo).

## Usage

```bash
pip install 'sb3-trpo[zoo]'
# download the model into the folder logs/ and watch it; add `--no-render` without a screen
TRUST_REMOTE_CODE=True sb3-trpo load_from_hub --algo {algo} --env {env} -orga {organization} -f logs/
sb3-trpo enjoy --algo {algo} --env {env} -f logs/
```

`load_from_hub` needs the variable because the hub's package asks for it. `sb3-trpo` runs nothing that the file contains.

## Training

```bash
sb3-trpo train --algo {algo} --env {env} -f logs/
sb3-trpo push_to_hub --algo {algo} --env {env} -f logs/ -orga {organization}
```

`target_kl` is the bound on the mean KL divergence of the whole action, in nats: it is summed over the action dimensions.
sb3-contrib's TRPO averages over them. So does its `cg_damping`.
"""
_TAIL = "## Hyperparameters"


def own_card(card: str) -> str:
    """
    Write the card of a model of this package.

    :param card: the card that RL Zoo has written
    :return: the card, with the Zoo's hyperparameters and environment arguments; the Zoo's card if it has another form
    """
    title = re.search(r"^# \*\*(?P<cls>.+?)\*\* Agent playing \*\*(?P<env>.+?)\*\*", card, re.MULTILINE)
    command = re.search(r"--algo (?P<algo>\S+) --env \S+ -orga (?P<organization>\S+)", card)
    if title is None or command is None or _TAIL not in card:
        return card
    return _CARD.format(**title.groupdict(), **command.groupdict()) + "\n" + card[card.index(_TAIL) :]


def with_own_card(save: Callable[..., Any]) -> Callable[..., Any]:
    """
    Replace the Zoo's card before the hub's package adds its metadata.

    :param save: ``metadata_save`` of ``huggingface_hub.repocard``
    :return: a function with the same arguments
    """

    def patched(local_path: str | Path, data: dict[str, Any]) -> Any:
        path = Path(local_path)
        path.write_text(own_card(path.read_text(encoding="utf-8")), encoding="utf-8")
        return save(local_path, data)

    return patched
