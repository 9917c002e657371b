"""Studies: many trainings, one matrix; the ledger of their results and what these say."""

from typing import TYPE_CHECKING, Any

from asr_dni.study.ledger import Ledger

if TYPE_CHECKING:
    from asr_dni.study.findings import Answer, Findings, find
    from asr_dni.study.matrix import Matrix, make_matrices

__all__ = ["Answer", "Findings", "Ledger", "Matrix", "find", "make_matrices"]


def __getattr__(name: str) -> Any:
    # On first use: a process that only adds to the ledger, or plans, should not wait for matplotlib, scipy and torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asr_dni.study import findings, matrix

    return getattr(matrix if name in ("Matrix", "make_matrices") else findings, name)
