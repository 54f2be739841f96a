"""One self-contained page per run folder: figures, rows and items, to look at and to pass on."""

from jelicit.report.comparison import compare_reports
from jelicit.report.run import write_report

__all__ = ["compare_reports", "write_report"]
