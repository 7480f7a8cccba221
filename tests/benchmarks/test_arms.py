"""The one table of what is compared covers the results that are kept."""

from benchmarks.common.arms import ALGORITHMS, COLOURS, LABELS, OURS, PEER, VARIANTS
from benchmarks.common.paths import RESULTS
from benchmarks.common.runs import curve_files, read_rows


def test_every_folder_of_results_has_a_label() -> None:
    folders = {path.parts[-3] for name in ("mujoco", "atari", "equal_settings") for path in curve_files(RESULTS / name)}
    folders |= {path.parts[-3] for path in curve_files(RESULTS / "vine" / "learning")}
    folders |= {row["algorithm"] for row in read_rows(RESULTS / "mujoco_rl_zoo_train.csv")}
    assert {OURS, PEER, *VARIANTS} <= folders | {"sb3_trpo_stacked"} <= set(LABELS)


def test_labels_and_colours_tell_apart() -> None:
    assert list(LABELS) == [*ALGORITHMS, *VARIANTS]
    assert len(set(LABELS.values())) == len(set(COLOURS.values())) == len(LABELS)
