"""ICM (Wen et al. 2025): labels by coherence, with no label of anybody.

`search` finds labels that a model predicts from each other and that contradict each other nowhere.
The model is an argument: anything with `score(prompts, verdicts)` (`jelicit.prompting.Scorer`).
"""

from jelicit.icm.baselines import (
    BASELINES,
    VARIANTS,
    baseline_scores,
    perturbed,
    start_labels,
    variant,
    with_preamble,
)
from jelicit.icm.batches import BatchedResult, search_in_batches, split_in_batches
from jelicit.icm.many_shot import many_shot_scores
from jelicit.icm.mirrors import with_mirrors
from jelicit.icm.objective import Judgement, Objective, Utility
from jelicit.icm.orders import (
    fixed,
    leave_one_out,
    reads_cached,
    reads_fixed,
    reads_recursive,
)
from jelicit.icm.prompter import Prompter, Reading
from jelicit.icm.search import initial_labels, search
from jelicit.icm.settings import SearchSettings
from jelicit.icm.steps import SearchResult, Step, accuracy
from jelicit.prompting.context import (
    Measures,
    check_fit,
    examples_that_fit,
    most_tokens,
    tokens_needed,
)

__all__ = [
    "BASELINES",
    "VARIANTS",
    "BatchedResult",
    "Judgement",
    "Measures",
    "Objective",
    "Prompter",
    "Reading",
    "SearchResult",
    "SearchSettings",
    "Step",
    "Utility",
    "accuracy",
    "baseline_scores",
    "check_fit",
    "examples_that_fit",
    "fixed",
    "initial_labels",
    "leave_one_out",
    "many_shot_scores",
    "most_tokens",
    "perturbed",
    "reads_cached",
    "reads_fixed",
    "reads_recursive",
    "search",
    "search_in_batches",
    "split_in_batches",
    "start_labels",
    "tokens_needed",
    "variant",
    "with_mirrors",
    "with_preamble",
]
