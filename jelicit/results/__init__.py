"""Tidy result rows: what a run is called, where its rows are kept, what they come to over seeds."""

from jelicit.results.identity import run_id
from jelicit.results.item_scores import ItemScores, ItemScoreStore
from jelicit.results.record import Finding, Record, TextTable
from jelicit.results.rows import Rows, as_frame, asked_for, name_of_targets, summarise
from jelicit.results.store import Results
from jelicit.results.tables import comparison_table, print_sweep, print_table, sweep_table

__all__ = [
    "Finding",
    "ItemScoreStore",
    "ItemScores",
    "Record",
    "Results",
    "Rows",
    "TextTable",
    "as_frame",
    "asked_for",
    "comparison_table",
    "name_of_targets",
    "print_sweep",
    "print_table",
    "run_id",
    "summarise",
    "sweep_table",
]
