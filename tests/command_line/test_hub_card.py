"""The hub's card names this package; one of another form stays as it is."""

import pytest

from sb3_trpo.command_line.hub_card import own_card

THEIRS = """
# **VineTRPO** Agent playing **Hopper-v5**
using SB3

pip install rl_zoo3
python -m rl_zoo3.load_from_hub --algo vine_trpo --env Hopper-v5 -orga someone -f logs/

## Hyperparameters
OrderedDict([('target_kl', 0.03)])

# Environment Arguments
{'a': 1}
"""


def test_the_card_is_of_this_package() -> None:
    card = own_card(THEIRS)
    assert card.startswith("\n# **VineTRPO** Agent playing **Hopper-v5**\n")
    assert "sb3-trpo enjoy --algo vine_trpo --env Hopper-v5 -f logs/" in card
    assert "sb3-trpo push_to_hub --algo vine_trpo --env Hopper-v5 -f logs/ -orga someone" in card
    assert card.endswith(THEIRS[THEIRS.index("## Hyperparameters") :])
    assert "rl_zoo3" not in card


@pytest.mark.parametrize("part", ["# **VineTRPO** Agent", "-orga someone", "## Hyperparameters"])
def test_a_card_of_another_form_is_left_alone(part: str) -> None:
    other = THEIRS.replace(part, "")
    assert own_card(other) == other
