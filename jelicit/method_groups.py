"""Which methods stand together in tables and figures, in reading order."""

UNSUPERVISED, EASY_TO_HARD = "Unsupervised", "Easy-to-hard"
COHERENCE, CEILING, PROMPTING = "Coherence", "Ceiling", "Prompting"
CONTROL, OTHER = "Control", "Other"
GROUPS = (PROMPTING, COHERENCE, UNSUPERVISED, EASY_TO_HARD, CEILING, CONTROL, OTHER)

WITHOUT, FROM_EASY, WITH = "without labels", "labels of an easy set", "with labels"
BLOCKS = (WITHOUT, FROM_EASY, WITH)
"""Labels that methods see, from none to the task's own; compared are those that see the same."""
