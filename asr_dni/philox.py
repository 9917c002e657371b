"""Counter-based random numbers: a number is a function of what it is for, not of when it is drawn.

The generator is Philox4x32-10 (J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy
as 1, 2, 3", SC 2011): a key and a 128-bit counter give four 32-bit words. Whoever needs a random number
names it by key (seed, purpose) and counter (clip, time step, unit), so results do not depend on batch size,
order of execution, number of threads or workers.

This file is the plain definition in torch operations, for every device; ``asr_dni.nn`` has fused versions
that give the same 32-bit words.
"""

import hashlib
import math
import operator
from collections.abc import Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

Key: TypeAlias = tuple[int, int]
"""Two 32-bit words."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 0xFFFFFFFF


def derive_key(*parts: int | str) -> Key:
    """Return the key that belongs to a purpose, such as ``derive_key(seed, "time shift", epoch)``.

    Args:
        *parts: integers (Python's, NumPy's or of a tensor) and strings; every one of them and its place counts, and
            1 is not "1".

    Returns:
        Two 32-bit words: the first eight bytes of the parts' BLAKE2b digest, so the same on every machine.

    Raises:
        TypeError: a part is neither an integer nor a string.
    """
    plain = tuple(part if isinstance(part, str) else int(operator.index(part)) for part in parts)
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _multiply_high_low(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low 32 bits of a 32 x 32 bit product.

    int64 products wrap modulo 2**64 on every device, so the bits are right though the sign may not be.
    """
    product = word * multiplier
    return (product >> 32) & _WORD, product & _WORD


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: Key | tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Return the four output words of Philox4x32-10.

    Args:
        counter: four int64 tensors that broadcast against each other, values in [0, 2**32).
        key: two 32-bit words, or two int64 tensors of them that broadcast against the counter.

    Returns:
        Four int64 tensors of the broadcast shape, values in [0, 2**32).
    """
    shape = torch.broadcast_shapes(*(word.shape for word in counter))  # type: ignore[no-untyped-call]
    c0, c1, c2, c3 = (word.expand(shape) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply_high_low(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply_high_low(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + _KEY_INCREMENTS[0]) & _WORD
        k1 = (k1 + _KEY_INCREMENTS[1]) & _WORD
    return c0, c1, c2, c3


def _words(
    key: Key | tuple[Tensor, Tensor], samples: Tensor, steps: Tensor, width: int
) -> tuple[Tensor, ...]:
    """Return four tensors of words of shape ``(T, N, width)``, or with more axes before, as ``samples`` has them."""
    samples = samples.to(torch.int64)
    units = torch.arange(width, device=samples.device)
    counter = (
        units,
        steps.to(torch.int64)[:, None, None],
        (samples & _WORD)[..., None, :, None],
        ((samples >> 32) & _WORD)[..., None, :, None],
    )
    return philox4x32(counter, key)


def _unit_interval(words: Tensor) -> Tensor:
    """Map 32-bit words to float32 in (0, 1]."""
    return (words.to(torch.float32) + 1.0) * 2.0**-32


def normal(key: Key | Sequence[Key], samples: Tensor, steps: Tensor, groups: int, width: int) -> Tensor:
    """Draw standard normal numbers by the Box-Muller transform.

    All four numbers of a counter are used, as far as three groups allow: with four or three groups (the gates of a
    cell) a unit's counter gives one to each; with two groups two go to each, and with one all four, to units that lie a
    half or a quarter of the width apart.

    Args:
        key: see :func:`derive_key`; or K of them, for K draws at once.
        samples: ``(N,)`` integer identities of the samples, any 64-bit integers; with K keys ``(K, N)``.
        steps: ``(T,)`` integer time steps, in [0, 2**32).
        groups: 1 to 4.
        width: numbers per group.

    Returns:
        ``(T, N, groups * width)`` float32 on the device of ``samples``. An entry depends on the key, its sample's
        identity, its time step, its group and its place in the group, with one or two groups on the width, and on
        nothing else. With K keys ``(K, T, N, groups * width)``, entry k what its key and its samples give alone.
    """
    if not 1 <= groups <= 4:
        raise ValueError(f"groups must be 1 to 4, not {groups}")
    counters = -(-width // (4 // groups))
    if isinstance(key[0], int):
        words = _words(cast(Key, key), samples, steps, counters)
    else:
        keys = torch.tensor(key, device=samples.device)[:, :, None, None, None]
        words = _words((keys[:, 0], keys[:, 1]), samples, steps, counters)
    numbers = []
    for first, second in ((0, 1), (2, 3)):
        radius = torch.sqrt(-2.0 * torch.log(_unit_interval(words[first])))
        angle = (2.0 * math.pi * 2.0**-32) * words[second].to(torch.float32)
        numbers += [radius * torch.cos(angle), radius * torch.sin(angle)]
    lanes = 4 // groups
    parts = [torch.cat(numbers[g * lanes : (g + 1) * lanes], dim=-1)[..., :width] for g in range(groups)]
    return torch.cat(parts, dim=-1)


def uniform(key: Key, samples: Tensor, width: int) -> Tensor:
    """Draw numbers that are uniform in (0, 1].

    Args:
        key: see :func:`derive_key`.
        samples: ``(N,)`` integer identities of the samples.
        width: numbers per sample.

    Returns:
        ``(N, width)`` float32 on the device of ``samples``; a row depends on the key and its sample alone.
    """
    step = torch.zeros(1, dtype=torch.int64, device=samples.device)
    return _unit_interval(_words(key, samples, step, width)[0][0])
