"""Which runs differ in seeds alone, by code, parameters and data; and what they come to together.

The runs are experiments of this repository, or were: reports/seeds.json, which scripts/seeds writes, keeps what they
came to.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from review import results
from review.revision import Experiment, Revision, git

FILE = Path("reports/seeds.json")
_CODE = ("src", "stages", "dvc.yaml")
_MOST_RUNS = 10_000


@dataclass(frozen=True)
class Sample:
    """A metric over runs that differ in seeds alone."""

    mean: float
    sd: float
    """Standard deviation of a run."""
    runs: int


def groups(experiments: Iterable[Experiment]) -> dict[tuple[str, ...], list[Experiment]]:
    """The experiments, and the commits they began at as far as those have results, by `but_for_seeds`: those that
    differ in seeds alone together, in the order of their seeds. The same run twice counts once, and one whose results
    are of other parameters than its own not at all. Left out is what has code and parameters that no other has."""
    experiments = list(experiments)
    bases = {item.base: Experiment(item.base[:10], item.base, item.base, "") for item in experiments}
    items = [*bases.values(), *experiments]
    # dvc.lock, which takes longest to read, is read of those alone that may belong together
    recipes = Counter(_recipe(commit) for commit in {item.commit for item in items})
    by_seeds: dict[tuple[str, ...], dict[tuple[str, ...], Experiment]] = {}
    for item in items:
        if recipes[_recipe(item.commit)] > 1 and metrics(item.commit) and _agree(item.commit):
            by_seeds.setdefault(but_for_seeds(item.commit), {})[of(item.commit)] = item
    return {key: [group[own] for own in sorted(group)] for key, group in by_seeds.items()}


def is_seed(name: str) -> bool:
    return name.rpartition(".")[2] == "seed"


def but_for_seeds(commit: str) -> tuple[str, ...]:
    """The code, the data and the parameters of a commit; equal for runs that differ in seeds alone."""
    return (*_recipe(commit), *(f"{path} {md5}" for path, md5 in sorted(_data(commit).items())))


@cache
def _recipe(commit: str) -> tuple[str, ...]:
    """The code and the parameters but for seeds."""
    values = parameters(commit)
    return (code(commit), *(f"{name}={values[name]}" for name in sorted(values) if not is_seed(name)))


def of(commit: str) -> tuple[str, ...]:
    """All its seeds."""
    values = parameters(commit)
    return tuple(f"{name}={values[name]}" for name in sorted(values) if is_seed(name))


def sample(commits: Sequence[str], name: str) -> Sample | None:
    """A metric over the commits that have it, if these are two or more."""
    values = [value for commit in commits if (value := metrics(commit).get(name)) is not None]
    return Sample(mean(values), stdev(values), len(values)) if len(values) > 1 else None


def samples(revision: Revision, experiments: Iterable[Experiment]) -> dict[str, Sample]:
    """The metrics of a revision over it and the runs that differ from it in seeds alone: of the experiments that are
    here, or by reports/seeds.json of one of these runs, if that is about its very result and of more runs."""
    commit, group = revision.commit or _unchanged(), []
    if commit:
        own = Experiment(commit[:10], commit, commit, "")
        group = [item.commit for item in groups([own, *experiments]).get(but_for_seeds(commit), [])]
    found = {name: over_runs for name in metrics(commit) if (over_runs := sample(group, name))} if group else {}
    for side in (revision, *(Revision(item, item) for item in group)):
        for name, over_runs in recorded(side).items():
            if name not in found or over_runs.runs > found[name].runs:
                found[name] = over_runs
    return found


def _unchanged() -> str:
    """The last commit, if the workspace has its code, parameters and results; else nothing."""
    changed = git("status", "--porcelain", "--", *_CODE, "params.yaml", "dvc.lock", "reports", f":(exclude){FILE}")
    return "" if changed else git("rev-parse", "--verify", "--quiet", "HEAD").strip()


def recorded(revision: Revision) -> dict[str, Sample]:
    """What reports/seeds.json of a revision says, if its commit had the metrics that the revision has. An author writes
    that file: what is no accuracy over some runs is left out."""
    own, stale, found = results.metrics(revision), results.outdated(revision), {}
    try:
        content = json.loads(revision.read(str(FILE)) or b"{}")
        for name, value in content["metrics"].items():
            if name.partition(".")[0] in stale:
                continue
            if f"{own.get(name):.6g}" != f"{value['commit']:.6g}":
                return {}
            sample = Sample(float(value["mean"]), float(value["sd"]), int(value["seeds"]))
            if 0 <= sample.mean <= 100 and 0 <= sample.sd <= 50 and 2 <= sample.runs <= _MOST_RUNS:
                found[name] = sample
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
    return found


def record(commit: str, group: Sequence[Experiment], names: Iterable[str]) -> Mapping[str, Any]:
    """The content of reports/seeds.json: of the metrics of those `names`, over the runs of a `group`."""
    commits, own = [item.commit for item in group], metrics(commit)
    found = {name: over_runs for name in names if name in own and (over_runs := sample(commits, name))}
    return {
        "commit": commit[:10],
        "runs": ", ".join(item.name for item in group),
        "seeds": len(group),
        "metrics": {
            name: {
                "mean": float(f"{over_runs.mean:.6g}"),
                "sd": float(f"{over_runs.sd:.6g}"),
                "seeds": over_runs.runs,
                "commit": own[name],
            }
            for name, over_runs in found.items()
        },
    }


@cache
def parameters(commit: str) -> dict[str, Any]:
    return results.parameters(Revision(commit, commit))


@cache
def metrics(commit: str) -> dict[str, float]:
    return results.metrics(Revision(commit, commit))


@cache
def _agree(commit: str) -> bool:
    return results.agree(Revision(commit, commit))


@cache
def _data(commit: str) -> dict[str, str]:
    return results.data(Revision(commit, commit))


@cache
def code(commit: str) -> str:
    """What Git calls the code of a commit by."""
    return " ".join(git("rev-parse", "--verify", "--quiet", f"{commit}:./{path}").strip() for path in _CODE)
