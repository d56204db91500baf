"""What importing ffcv does to a process."""

import subprocess
import sys

IN_A_THREAD_ON_ONE_CORE = """
import importlib, os, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
thread = threading.Thread(target=importlib.import_module, args=["simclr.data.upstream"])
thread.start()
thread.join()
from numba.np.ufunc import parallel
assert not parallel._is_initialized
"""
ITS_LOADER_HAS_ITS_THREADS = """
import os
os.environ["NUMBA_NUM_THREADS"] = "2"  # also on one core
import numba, simclr.data.upstream
from ffcv.pipeline.compiler import Compiler
Compiler.set_num_threads(1)
assert numba.get_num_threads() == 1
"""


def test_a_process_on_one_core_ends_after_it_was_imported() -> None:
    subprocess.run([sys.executable, "-c", IN_A_THREAD_ON_ONE_CORE], check=True, timeout=60)


def test_its_own_loader_has_the_threads_that_it_asks_for() -> None:
    subprocess.run([sys.executable, "-c", ITS_LOADER_HAS_ITS_THREADS], check=True, timeout=60)
