"""What each method is called in tables and figures, and which methods stand together."""

from collections.abc import Iterable
from typing import NamedTuple


class Method(NamedTuple):
    """A method's key in result rows, its name for readers, and its group."""

    key: str
    name: str
    group: str


UNSUPERVISED, EASY_TO_HARD = "Unsupervised", "Easy-to-hard"
COHERENCE, CEILING, PROMPTING = "Coherence", "Ceiling", "Prompting"
CONTROL, OTHER = "Control", "Other"
GROUPS = (PROMPTING, COHERENCE, UNSUPERVISED, EASY_TO_HARD, CEILING, CONTROL, OTHER)

# In reading order: simple before combined, within each group.
METHODS = (
    Method("zero_shot", "Zero-shot", PROMPTING),
    Method("zero_shot_assistant", "Zero-shot, as an assistant", PROMPTING),
    Method("zero_shot_chat", "Zero-shot, chat model", PROMPTING),
    Method("random_few_shot", "Random few-shot", PROMPTING),
    Method("random_many_shot", "Random many-shot", PROMPTING),
    Method("bootstrapped", "Bootstrapped", PROMPTING),
    Method("bootstrapped_consistent", "Bootstrapped + consistency", PROMPTING),
    Method("icm", "ICM", COHERENCE),
    Method("icm_golden_start", "ICM from golden labels", COHERENCE),
    Method("icm_wrong_start", "ICM from wrong labels", COHERENCE),
    Method("icm_no_consistency", "ICM without consistency", COHERENCE),
    Method("icm_supervised", "Supervised by ICM's labels", COHERENCE),
    Method("random", "Random probe", UNSUPERVISED),
    Method("ccs", "CCS", UNSUPERVISED),
    Method("ccs_rebalanced", "CCS, rebalanced", UNSUPERVISED),
    Method("pca", "PCA", UNSUPERVISED),
    Method("pca_rebalanced", "PCA, rebalanced", UNSUPERVISED),
    Method("random_ensemble_consensus", "Random ensemble (consensus)", UNSUPERVISED),
    Method("pca_ensemble_consensus", "PCA ensemble (consensus)", UNSUPERVISED),
    Method("e2h", "E2H", EASY_TO_HARD),
    Method("ue_e2h", "UE+E2H", EASY_TO_HARD),
    Method("random_ensemble_e2h", "Random ensemble (E2H)", EASY_TO_HARD),
    Method("pca_ensemble_e2h", "PCA ensemble (E2H)", EASY_TO_HARD),
    Method("supervised", "Supervised", CEILING),
    Method("mean_difference", "Difference of means", CEILING),
    Method("lda", "LDA", CEILING),
    Method("golden_few_shot", "Golden few-shot", CEILING),
    Method("golden_many_shot", "Golden many-shot", CEILING),
    Method("wrong_many_shot", "Golden turned round", CONTROL),
    Method("icm_perturbed", "Golden, errors as ICM", CONTROL),
    Method("control_length", "Length alone", CONTROL),
)

_BY_KEY = {method.key: method for method in METHODS}
_PLACE = {method.key: place for place, method in enumerate(METHODS)}

_NAMES = {
    "none": "No added feature",
    "gsm8k": "GSM8K",
    "liar": "LIAR",
    "civil_comments": "Civil Comments",
    "ctrl_z": "Ctrl-Z",
    "larger_than": "Larger than",
}


def method_of(key: str) -> Method:
    """The method with this key; an unknown key names itself and stands in the group "Other"."""
    if key.startswith("control_") and key not in _BY_KEY:
        name = readable(key.removeprefix("control_"))
        return Method(key, f"{name} alone", CONTROL)
    return _BY_KEY.get(key) or Method(key, key.replace("_", " "), OTHER)


def in_reading_order(keys: Iterable[str]) -> list[Method]:
    """The methods of these keys, each once: group by group, known before unknown ones."""
    methods = [method_of(key) for key in dict.fromkeys(keys)]
    return sorted(methods, key=lambda m: (GROUPS.index(m.group), _PLACE.get(m.key, len(_PLACE))))


def readable(name: str) -> str:
    """A dataset's or feature's name for readers: "pocket/larger_than" -> "Larger than (pocket)"."""
    if " + " in name:
        return " + ".join(readable(part) for part in name.split(" + "))
    world, _, short = name.rpartition("/")
    words = _NAMES.get(short, short[:1].upper() + short[1:].replace("_", " "))
    return f"{words} ({world})" if world else words
