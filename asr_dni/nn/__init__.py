"""Noisy layers with the interface of their ``torch.nn`` counterparts. Know nothing of Lightning.

What torch does with modules and functions, and what becomes of it here; *loop* is the reference implementation, which
is taken by itself where no kernel can run, and which ``use_implementation("reference")`` chooses:

============================================  ====================================================================
``torch.utils.checkpoint``, reentrant or not  works: what runs again has the noise, draw, strength and dropout masks
                                              of the first time, also after the block of ``under`` has ended
another library's activation checkpointing    works where the function sets the noise itself; else refused under noise
second derivatives (``create_graph``)         work: on the CPU by the loop in the backward pass; on a GPU, and of the
                                              CPU's kernel under autocast, refused but with the loop chosen
``functional_call``, ``grad``, ``vmap``,      work, by the loop; all that ``vmap`` maps over is one forward pass, and
``jacrev``, ``jvp`` of ``torch.func``         has one draw; so does forward-mode differentiation
``torch.jit.trace``, ``torch.export``         work without noise, by the loop, for the number of steps they were made
                                              with; noise would be the same in every call, and is refused
``torch.compile``                             works; the kernels stay out of its graphs
threads                                       work: a block of ``under`` holds in its own thread, an assigned noise in
                                              all, and no two passes get one draw
``copy.deepcopy``, ``pickle``                 work: a copy keeps the noise in force where it was made, to stay
``torch.nn.DataParallel``                     works without noise; its parts of a batch would share their noise: refused
meta device, ``FakeTensorMode``, subclasses   work, by the loop
============================================  ====================================================================
"""

from asr_dni.nn.any_cell import NoisyRecurrent
from asr_dni.nn.cells import CELLS, OwnParameter, RecurrentCell
from asr_dni.nn.compensation import compensate
from asr_dni.nn.conversion import convert
from asr_dni.nn.convolution import NoisyConv2d
from asr_dni.nn.dropout import CounterDropout, DropoutSeed, seeded_dropout
from asr_dni.nn.implementation import Implementation, use_implementation
from asr_dni.nn.learned_bounds import LearnedBound, learn_bounds, learned_bounds
from asr_dni.nn.linear import NoisyLinear
from asr_dni.nn.normalisation import StackableBatchNorm2d, SubSpectralNorm2d
from asr_dni.nn.recurrent import NoisyGRU, NoisyLSTM, NoisyRNN
from asr_dni.nn.stacking import repeat_network, stack_networks, unstack_network
from asr_dni.nn.statistics import CalibratedModule, calibrate, snr_db
from asr_dni.stackable import Stackable

__all__ = [
    "CELLS",
    "CalibratedModule",
    "CounterDropout",
    "DropoutSeed",
    "Implementation",
    "LearnedBound",
    "NoisyConv2d",
    "NoisyGRU",
    "NoisyLSTM",
    "NoisyLinear",
    "NoisyRNN",
    "NoisyRecurrent",
    "OwnParameter",
    "RecurrentCell",
    "Stackable",
    "StackableBatchNorm2d",
    "SubSpectralNorm2d",
    "calibrate",
    "compensate",
    "convert",
    "learn_bounds",
    "learned_bounds",
    "repeat_network",
    "seeded_dropout",
    "snr_db",
    "stack_networks",
    "unstack_network",
    "use_implementation",
]
