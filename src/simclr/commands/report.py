"""`simclr report`: one HTML page that compares experiments, by scripts/report-page of this repository."""

import os
import sys
from pathlib import Path

from simclr.core.errors import UserError

_SCRIPT = Path(__file__).parents[3] / "scripts" / "report-page"


def main() -> None:
    """Become the script, with the arguments of this command.

    Raises:
        UserError: the package was installed without the repository, which has the script.
    """
    if not _SCRIPT.is_file():
        raise UserError(f"{_SCRIPT}: is not there; the page is made in a clone of the repository")
    os.execv(sys.executable, [sys.executable, str(_SCRIPT), *sys.argv[1:]])
