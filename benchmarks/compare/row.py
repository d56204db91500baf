"""A line of the table: the outcomes of a sweep's row, one for each seed, and what they say."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.compare.experiment import Experiment, FailedError, Outcome
from simclr.tracking import progress


@dataclass
class Row:
    """Of the experiments with the same parameters, but for their seeds."""

    name: str
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """By seed."""
    failure: str = ""
    """Why an experiment has none, and those with later seeds were not run."""

    def values(self, figure: str) -> list[float]:
        """That `figure` of all outcomes."""
        return [getattr(outcome, figure) for outcome in self.outcomes.values()]

    def gains(self, baseline: str) -> list[float]:
        """By how many points the linear probe of each outcome is above its own `baseline`: untrained or raw_pixels."""
        return [outcome.linear - getattr(outcome, baseline) for outcome in self.outcomes.values()]

    def gains_over(self, other: "Row") -> list[float]:
        """By how many points the linear probe is above that of the `other` row with the same seed."""
        return [
            outcome.linear - other.outcomes[seed].linear
            for seed, outcome in self.outcomes.items()
            if seed in other.outcomes
        ]

    @property
    def above_baselines(self) -> bool:
        """Whether the mean gain over either baseline is above two standard deviations of the gains, or above 0 with one
        seed."""
        both = [self.gains(baseline) for baseline in ("untrained", "raw_pixels")]
        return all(statistics.mean(gains) > (2 * statistics.stdev(gains) if len(gains) > 1 else 0.0) for gains in both)


def measured(
    experiments: Sequence[Experiment],
    outcome: Callable[[Experiment], Outcome],
    written: Callable[[list[Row]], None],
) -> list[Row]:
    """The rows of all `experiments`, in their order; `written` is called with the rows so far after each."""
    rows: dict[str, Row] = {}
    for experiment in experiments:
        rows.setdefault(experiment.row, Row(experiment.row))
    with progress.bar(len(experiments), "run", "compare") as bar:
        for experiment in experiments:
            bar.set_postfix_str(f"{experiment.row}, seed {experiment.seed}: runs/{experiment.name}/dvc.log")
            row = rows[experiment.row]
            if not row.failure:
                try:
                    row.outcomes[experiment.seed] = outcome(experiment)
                except FailedError as reason:
                    row.failure = str(reason)
                written(list(rows.values()))
            bar.update()
    return list(rows.values())
