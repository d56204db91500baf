"""Signals are noted, and nobody waits for ever for processes that are gone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simclr.core import signals


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in signals.SIGNALS}
    with signals.catch_signals(multi_process=False) as noted:
        assert noted.number == 0
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert noted.number == number  # the first
        noted.acknowledge()
    assert {each: signal.getsignal(each) for each in signals.SIGNALS} == before
    with signals.catch_signals(multi_process=True):
        assert signal.getsignal(number) != before[number]
    assert {each: signal.getsignal(each) for each in signals.SIGNALS} == before


def in_a_process(body: str) -> subprocess.CompletedProcess[str]:
    code = "import os, signal, time\nfrom simclr.core import signals\n" + body
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_alone_a_second_sigint_ends_the_process_and_no_other_does() -> None:
    result = in_a_process("""
with signals.catch_signals(multi_process=False) as noted:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(os.getpid(), number)
    print(noted.number, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
""")
    assert (result.returncode, result.stdout) == (-signal.SIGINT, "15\n")


@pytest.mark.parametrize("second", signals.SIGNALS)
def test_among_others_a_second_signal_does_not_end_a_process_that_says_why_it_stops(second: signal.Signals) -> None:
    """As srun sends one when SLURM has sent another."""
    result = in_a_process(f"""
with signals.catch_signals(multi_process=True) as noted:
    os.kill(os.getpid(), signal.SIGTERM)
    noted.acknowledge()
os.kill(os.getpid(), {second.value})
print("stopped at step 4")
""")
    assert (result.returncode, result.stdout) == (0, "stopped at step 4\n")


STUCK = """
import ctypes, threading
signals._GRACE = 0.5
with signals.catch_signals(multi_process=True) as noted:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    {wait}
"""


def test_stuck_among_others_a_process_ends_in_time() -> None:
    began = time.monotonic()
    # waits in C, the second of which no handler of Python's interrupts, as a collective's
    result = in_a_process(STUCK.format(wait="libc = ctypes.CDLL(None); libc.pause() + libc.pause()"))
    assert result.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 15


def test_one_that_heeds_the_signal_may_take_its_time() -> None:
    result = in_a_process(STUCK.format(wait="time.sleep(0.4); noted.acknowledge(); time.sleep(1)"))
    assert result.returncode == 0
