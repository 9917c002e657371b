"""A report on runs and studies: one HTML page that needs no network, or a PDF for papers."""

from asr_dni.report.document import Answers, Choice, Document, Section, Table, Text
from asr_dni.report.report import make_report, write_report

__all__ = ["Answers", "Choice", "Document", "Section", "Table", "Text", "make_report", "write_report"]
