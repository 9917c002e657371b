"""The allocator's setting, in a process of its own."""

import json
import platform
import subprocess
import sys

import pytest

FAULTS = """
import json, resource
import torch
from asr_dni.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(2**24).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
assert keep_freed_memory()
kept = [faults() for _ in range(6)][-1]  # once blocks have found their places
print(json.dumps([given_back, kept]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_large_tensors_are_not_faulted_in_anew():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = json.loads(run.stdout)
    assert given_back > 4 * 1000  # 64 MiB are 16,384 pages
    assert kept < 1000
