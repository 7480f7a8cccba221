"""The one table of what is compared covers the results that are kept."""

from benchmarks.common.arms import ALGORITHMS, COLOURS, LABELS, OURS, PEER, VARIANTS
from benchmarks.common.paths import RESULTS
from benchmarks.common.runs import curve_files, read_rows

KEPT = ("mujoco", "atari", "equal_settings", "memory_and_masks")
"""Folders of results, each with a folder for every environment."""


def test_every_folder_of_results_has_a_label() -> None:
    folders = {path.parts[-3] for name in KEPT for path in curve_files(RESULTS / name)}
    folders |= {path.parts[-3] for path in curve_files(RESULTS / "vine" / "learning")}
    folders |= {row["algorithm"] for row in read_rows(RESULTS / "mujoco_rl_zoo_train.csv")}
    assert {OURS, PEER, *VARIANTS} <= folders <= set(LABELS)


def test_labels_and_colours_tell_apart() -> None:
    assert list(LABELS) == [*ALGORITHMS, *VARIANTS]
    assert len(set(LABELS.values())) == len(set(COLOURS.values())) == len(LABELS)
