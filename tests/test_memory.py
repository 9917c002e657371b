"""The allocator's setting, in a process of its own."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from asr_dni.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def touch():
    for _ in range(20):
        torch.empty(2**24).fill_(1.0)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_large_tensors_are_not_faulted_in_anew():
    faults = {}
    for way in ("kept", "given back"):
        run = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        faults[way] = int(run.stdout)
    assert faults["given back"] > 20 * 1000  # 64 MiB are 16,384 pages
    assert faults["kept"] < 1000
