"""The section `processor` of params.yaml: how a CPU computes, which decides the last bits of results."""

import os
from dataclasses import dataclass

from simclr.core import params
from simclr.core.errors import UserError
from simclr.core.processor import CPU, MODES, MOST_THREADS, THREADS


@dataclass(kw_only=True)
class ProcessorParams:
    """`processor` of params.yaml."""

    instructions: str = params.choice(*MODES)
    threads: int = params.between(1, MOST_THREADS)


def environment(parameters: ProcessorParams) -> dict[str, str]:
    """The variables that `processor.hold` reads, as `parameters` say.

    They are set before a stage starts, because it loads the libraries before it reads params.yaml.

    Raises:
        UserError: one is set already and says something else. What decides results is not the environment's: DVC would
            take them for those of params.yaml.
    """
    wanted = {CPU: ("instructions", parameters.instructions), THREADS: ("threads", str(parameters.threads))}
    for variable, (key, value) in wanted.items():
        if (given := os.environ.get(variable, value)) != value:
            raise UserError(
                f"environment: {variable} = {given}, but {params.FILE} has processor.{key}: {value}; "
                "what decides results belongs there"
            )
    return {variable: value for variable, (_, value) in wanted.items()}
