"""`make bench`: how fast this project is, every figure beside that of a real alternative, measured in the same run.

All of them at this processor's own speed: see `simclr.core.processor`.
"""

import importlib
import os
import sys

if "simclr" not in sys.modules:
    os.environ.setdefault("SIMCLR_CPU", "native")
    importlib.import_module("simclr")  # sets what torch and its libraries read when they are loaded, as in a run
