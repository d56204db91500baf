"""Run all stages in this folder, one after another in one process: an emulated one imports torch for minutes."""

import runpy
import sys

from tests.helpers.programs import ROOT, STAGES

for stage in STAGES:
    program = str(ROOT / "stages" / f"{stage}.py")
    sys.argv = [program]
    runpy.run_path(program, run_name="__main__")
