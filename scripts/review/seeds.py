"""Which runs differ in seeds alone: the same code, and the same parameters but for those called seed."""

from collections.abc import Iterable
from functools import cache
from statistics import mean, stdev
from typing import Any

from review import results
from review.revision import Experiment, Revision, git

_CODE = ("src", "stages", "dvc.yaml")


def groups(experiments: Iterable[Experiment]) -> dict[tuple[str, ...], list[Experiment]]:
    """The experiments, and the commits they began at as far as those have results, by `but_for_seeds`: those that
    differ in seeds alone together, in the order of their seeds. The same run twice counts once."""
    experiments = list(experiments)
    bases = {item.base: Experiment(item.base[:10], item.base, item.base, "") for item in experiments}
    by_seeds: dict[tuple[str, ...], dict[tuple[str, ...], Experiment]] = {}
    for item in [*bases.values(), *experiments]:
        if metrics(item.commit):
            by_seeds.setdefault(but_for_seeds(item.commit), {})[of(item.commit)] = item
    return {key: [group[own] for own in sorted(group)] for key, group in by_seeds.items()}


def is_seed(name: str) -> bool:
    return name.rpartition(".")[2] == "seed"


def but_for_seeds(commit: str) -> tuple[str, ...]:
    """The code and the parameters of a commit; equal for runs that differ in seeds alone."""
    values = parameters(commit)
    return code(commit), *(f"{name}={values[name]}" for name in sorted(values) if not is_seed(name))


def of(commit: str) -> tuple[str, ...]:
    """All its seeds."""
    values = parameters(commit)
    return tuple(f"{name}={values[name]}" for name in sorted(values) if is_seed(name))


def spread(commits: Iterable[str], name: str) -> tuple[float, float] | None:
    """Mean and standard deviation of a metric over two commits or more that have it."""
    values = [value for commit in commits if (value := metrics(commit).get(name)) is not None]
    return (mean(values), stdev(values)) if len(values) > 1 else None


@cache
def parameters(commit: str) -> dict[str, Any]:
    return results.parameters(Revision(commit, commit))


@cache
def metrics(commit: str) -> dict[str, float]:
    return results.metrics(Revision(commit, commit))


@cache
def code(commit: str) -> str:
    """What Git calls the code of a commit by."""
    return " ".join(git("rev-parse", "--verify", "--quiet", f"{commit}:./{path}").strip() for path in _CODE)
