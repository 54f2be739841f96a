"""Which methods stand together in tables and figures, in reading order."""

UNSUPERVISED, EASY_TO_HARD = "Unsupervised", "Easy-to-hard"
COHERENCE, CEILING, PROMPTING = "Coherence", "Ceiling", "Prompting"
CONTROL, OTHER = "Control", "Other"
GROUPS = (PROMPTING, COHERENCE, UNSUPERVISED, EASY_TO_HARD, CEILING, CONTROL, OTHER)
