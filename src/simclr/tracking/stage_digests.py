"""The digests by which run.json tells what code and parameters made a stage's results."""

from collections.abc import Sequence
from pathlib import Path

from simclr.core import fingerprint, params_file
from simclr.core.options import names


def of(program: Path, options: Sequence[str], sections: Sequence[str] = ()) -> dict[str, str]:
    """Digests of the code of the stage `program` with its `options`, and of their sections of params.yaml and the other
    `sections`; see `provenance.write`."""
    values = params_file.read()
    used = [name for option in options for name in _named(option)]
    parameters = {name: params_file.lookup(values, name) for name in (program.stem, *used, *sections)}
    return {"code": fingerprint.of_program(program, used), "parameters": fingerprint.of_values(parameters)}


def _named(option: str) -> list[str]:
    """The options that `option` stands for: "losses.*" for all losses."""
    package, _, name = option.partition(".")
    return [f"{package}.{other}" for other in names(package)] if name == "*" else [option]
