"""What pretraining minimises. A loss is a module of this package, by its name:

    class Params: ...       # a dataclass: its section `losses.<name>` of params.yaml

    def loss(z: Tensor, parameters: Params, session: Session) -> Tensor: ...

`loss` returns the mean over this rank's rows of z (2n, d), second views after first ones, as a float32 scalar. The rows
of all ranks are compared; the mean of the ranks' gradients is the gradient of one process on the global batch.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from simclr.core import options, params
from simclr.core.errors import UserError
from simclr.distributed.session import Session

NAMES = options.names(__name__)


@dataclass(frozen=True)
class Loss:
    """A loss by its name, with its parameters."""

    name: str
    parameters: Any

    def __call__(self, z: Tensor, session: Session) -> Tensor:
        """See `losses`."""
        value: Tensor = options.load(__name__, self.name).loss(z, self.parameters, session)
        return value


def load(name: str) -> Loss:
    """The loss `name` with its section of params.yaml.

    Raises:
        UserError: as `check`.
    """
    return check(params.read().get("losses"), str(params.FILE))[name]


def check(sections: Any, origin: str) -> dict[str, Loss]:
    """All losses with their `sections`, which `origin` has.

    Raises:
        UserError: a section is missing or is that of no loss, or a value is not allowed.
    """
    if not isinstance(sections, dict) or sorted(sections) != NAMES:
        raise UserError(f"{origin}: losses must have the sections {', '.join(NAMES)}, and no other")
    return {
        name: Loss(name, params.check(sections[name], options.load(__name__, name).Params, f"losses.{name}", origin))
        for name in NAMES
    }
