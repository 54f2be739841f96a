"""Studies: which question is asked of a model, what is measured, and what comes out."""
