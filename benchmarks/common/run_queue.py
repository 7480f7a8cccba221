"""Make the runs of an experiment one by one; processes that are started at once, or later, share them."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def make_missing(
    out: Path,
    environments: Collection[str],
    seeds: Mapping[str, Collection[int]],
    make: Callable[[Path, str, str, int], None],
) -> None:
    """
    Make every run that has no ``run.json`` yet, the first seeds of all first.

    :param out: folder of the runs, ``ENV/NAME/seedN``
    :param environments: ids
    :param seeds: of each arm, by the name of its folder
    :param make: makes a run from its folder, the name of its arm, the environment and the seed
    """
    for seed, env_id, name in itertools.product(sorted(set().union(*seeds.values())), environments, seeds):
        folder = out / env_id / name / f"seed{seed}"
        if seed not in seeds[name] or (folder / "run.json").exists():
            continue
        with claimed(folder) as free:
            if free:
                make(folder, name, env_id, seed)
            else:
                print(f"{folder} is being trained, or its lock was left behind: {folder}.lock", flush=True)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """
    Claim a run, so that another process with the same command takes the next one.

    :param folder: folder of the run
    :return: whether it was free
    """
    lock = folder.with_name(f"{folder.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.mkdir()
    except FileExistsError:
        yield False
        return
    try:
        yield True
    finally:
        lock.rmdir()
