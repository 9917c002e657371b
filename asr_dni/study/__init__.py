"""Studies: many trainings, one matrix; the ledger of their results and what these say."""

from asr_dni.study.ledger import Ledger

__all__ = ["Ledger"]
