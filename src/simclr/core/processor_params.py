"""The section `processor` of params.yaml: instructions and threads, which decide the last bits of results."""

import os
from dataclasses import dataclass

from simclr.core import params, params_file
from simclr.core.errors import UserError
from simclr.core.processor import CPU, MODES, MOST_THREADS, THREADS


@dataclass(kw_only=True)
class ProcessorParams:
    """`processor` of params.yaml."""

    instructions: str = params.choice(*MODES)
    threads: int = params.between(1, MOST_THREADS)


def environment(parameters: ProcessorParams) -> dict[str, str]:
    """The environment variables of `parameters`, for `processor.hold`.

    They are set before a stage starts, because it loads the libraries before it reads params.yaml.

    Raises:
        UserError: a variable is set already, to another value: DVC would take the results for those of params.yaml.
    """
    variables = {CPU: ("instructions", parameters.instructions), THREADS: ("threads", str(parameters.threads))}
    for variable, (key, value) in variables.items():
        if (present := os.environ.get(variable, value)) != value:
            raise UserError(
                f"environment: {variable} = {present}, but {params_file.FILE} has processor.{key}: {value}; "
                "what decides results belongs there"
            )
    return {variable: value for variable, (_, value) in variables.items()}
