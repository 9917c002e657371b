"""Modules that have a form for K networks of one shape: a population."""

from collections.abc import Sequence
from typing import Any

from torch import nn


class Stackable(nn.Module):
    """A module that can be K networks at once: its parameters and buffers then have a leading axis K.

    It is what :func:`asr_dni.nn.stack_networks` takes, beside modules that have no parameters or buffers. A subclass
    that holds more than those says in :meth:`stack_members` and :meth:`keep_member` what becomes of it.

    Attributes:
        networks: K, the number of networks in a population; ``None`` for an ordinary module.
    """

    networks: int | None = None

    def stack_members(self, members: Sequence[Any]) -> None:
        """Become a population; parameters and buffers have become the members' already.

        Args:
            members: the K ordinary modules.
        """
        self.networks = len(members)

    def keep_member(self, member: int) -> None:
        """Become an ordinary module; parameters and buffers have become a member's already.

        Args:
            member: which one's.
        """
        self.networks = None
