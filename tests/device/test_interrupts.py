"""Ctrl-C that comes where no exception can leave still ends the program."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import gc, os, signal, sys, time
from edgeclf_device.interrupts import kept_interrupts

class Destroyed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass

def collected(phase, info):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass

def lose():
    if sys.argv[1] == "destructor":
        Destroyed()
    else:
        gc.callbacks.append(collected)
        gc.collect()
        gc.callbacks.clear()

with kept_interrupts():
    with kept_interrupts():
        lose()
        time.sleep(30)  # reached, and cut short
"""


def run(lost_in):
    return subprocess.run([sys.executable, "-c", PROGRAM, lost_in], capture_output=True, text=True, check=False)


def test_an_interrupt_in_a_destructor_or_a_garbage_collection_comes_again():
    for lost_in in ("destructor", "collection"):
        done = run(lost_in)
        assert done.returncode == -signal.SIGINT, done.stderr


def test_other_exceptions_are_reported_as_always_and_the_hook_is_put_back():
    program = """
import sys
from edgeclf_device.interrupts import kept_interrupts

class Faulty:
    def __del__(self):
        raise ValueError("said")

before = sys.unraisablehook
with kept_interrupts():
    Faulty()
assert sys.unraisablehook is before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "ValueError: said" in done.stderr
