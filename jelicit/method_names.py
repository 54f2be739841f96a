"""What each method is called in tables and figures, and which methods stand together.

A probe's name and group are those of its declaration, a user's own probe included once it has been
named; what is no probe (prompting, label search, controls) stands here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from jelicit.data.datasets import title_of
from jelicit.data.features import title_of_feature
from jelicit.data.shown import printable
from jelicit.method_groups import (
    CEILING,
    COHERENCE,
    CONTROL,
    GROUPS,
    OTHER,
    PROMPTING,
)


class MethodName(NamedTuple):
    """A method's key in result rows, its name for readers, and its group."""

    key: str
    name: str
    group: str


# Those that are no probes; in reading order within each group: simple before combined.
_NO_PROBES = (
    MethodName("zero_shot", "Zero-shot", PROMPTING),
    MethodName("zero_shot_calibrated", "Zero-shot, calibrated", PROMPTING),
    MethodName("zero_shot_assistant", "Zero-shot, as an assistant", PROMPTING),
    MethodName("zero_shot_chat", "Zero-shot, chat model", PROMPTING),
    MethodName("random_few_shot", "Random few-shot", PROMPTING),
    MethodName("random_few_shot_calibrated", "Random few-shot, calibrated", PROMPTING),
    MethodName("random_many_shot", "Random many-shot", PROMPTING),
    MethodName("bootstrapped", "Bootstrapped", PROMPTING),
    MethodName("bootstrapped_calibrated", "Bootstrapped, calibrated", PROMPTING),
    MethodName("bootstrapped_consistent", "Bootstrapped + consistency", PROMPTING),
    MethodName(
        "bootstrapped_consistent_calibrated", "Bootstrapped + consistency, calibrated", PROMPTING
    ),
    MethodName("zero_shot_many_shot", "Own answers, many-shot", PROMPTING),
    MethodName("bootstrapped_many_shot", "Bootstrapped labels, many-shot", PROMPTING),
    MethodName("tuned_zero_shot", "Fine-tuned, own answers", PROMPTING),
    MethodName("tuned_bootstrapped", "Fine-tuned, bootstrapped", PROMPTING),
    MethodName("icm", "ICM", COHERENCE),
    MethodName("icm_golden_start", "ICM from golden labels", COHERENCE),
    MethodName("icm_wrong_start", "ICM from wrong labels", COHERENCE),
    MethodName("icm_no_consistency", "ICM without consistency", COHERENCE),
    MethodName("icm_iterative", "ICM, fine-tuned between batches", COHERENCE),
    MethodName("icm_extended", "ICM's first batch, fine-tuned for the rest", COHERENCE),
    MethodName("tuned_icm", "Fine-tuned, ICM", COHERENCE),
    MethodName("icm_supervised", "Supervised by ICM's labels", COHERENCE),
    MethodName("reward_icm_first", "Reward model, ICM, first", COHERENCE),
    MethodName("reward_icm", "Reward model, ICM", COHERENCE),
    MethodName("best_of_icm", "Best of n, ICM", COHERENCE),
    MethodName("policy_icm", "Assistant, ICM", COHERENCE),
    MethodName("golden_few_shot", "Golden few-shot", CEILING),
    MethodName("golden_few_shot_calibrated", "Golden few-shot, calibrated", CEILING),
    MethodName("golden_many_shot", "Golden many-shot", CEILING),
    MethodName("reward_golden", "Reward model, golden", CEILING),
    MethodName("reward_human", "Reward model, annotator", CEILING),
    MethodName("best_of_golden", "Best of n, golden", CEILING),
    MethodName("best_of_human", "Best of n, annotator", CEILING),
    MethodName("policy_golden", "Assistant, golden", CEILING),
    MethodName("policy_human", "Assistant, annotator", CEILING),
    MethodName("human_many_shot", "Human many-shot", CEILING),
    MethodName("tuned_golden", "Fine-tuned, golden", CEILING),
    MethodName("tuned_human", "Fine-tuned, human", CEILING),
    MethodName("start", "Not optimised", CONTROL),
    MethodName("reward_perturbed", "Reward model, errors as ICM", CONTROL),
    MethodName("wrong_many_shot", "Golden turned round", CONTROL),
    MethodName("icm_perturbed", "Golden, errors as ICM", CONTROL),
    MethodName("perturbed_many_shot", "Golden, errors as ICM, many-shot", CONTROL),
    MethodName("tuned_wrong", "Fine-tuned, golden turned round", CONTROL),
    MethodName("tuned_perturbed", "Fine-tuned, errors as ICM", CONTROL),
    MethodName("control_length", "Length alone", CONTROL),
)

_REBALANCED = "_rebalanced"
# Every probe may have one: fitted on what is left once answers were balanced.
_WITH_REBALANCED = ("ccs", "pca")


def known() -> tuple[MethodName, ...]:
    """All methods in reading order: group by group, a user's own after those built in."""
    probes = list(_probes())
    declared = {method.key for method in probes}
    probes += [method for method in _ALSO.get() if method.key not in declared]
    methods = [*probes, *_NO_PROBES]
    return tuple(sorted(methods, key=lambda method: GROUPS.index(method.group)))


_ALSO: ContextVar[tuple[MethodName, ...]] = ContextVar("also named", default=())


@contextmanager
def also_named(titles: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Inside, methods that nothing here declares have the names that a record carries.

    Args:
        titles: Of `own_titles`, maybe of another process.
    """
    names = (MethodName(k, name, g if g in GROUPS else OTHER) for k, (name, g) in titles.items())
    before = _ALSO.set(tuple(names))
    try:
        yield
    finally:
        _ALSO.reset(before)


def own_titles(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name and group of those of these methods that are a user's own, by key: for records."""
    from jelicit.probes.registry import BUILT_IN, known_methods

    own = {m.name: (m.title, m.group) for m in known_methods() if m not in BUILT_IN}
    return {key: own[key] for key in dict.fromkeys(keys) if key in own}


def _probes() -> Iterator[MethodName]:
    """What the probes' declarations say."""
    # On demand: the declarations stand beside their fits, and so bring JAX.
    from jelicit.probes.registry import known_methods

    for method in known_methods():
        named = MethodName(method.name, method.title, method.group)
        yield named
        if method.name in _WITH_REBALANCED:
            yield _rebalanced(named)


def _rebalanced(method: MethodName) -> MethodName:
    return MethodName(f"{method.key}{_REBALANCED}", f"{method.name}, rebalanced", method.group)


def method_of(key: str) -> MethodName:
    """The method with this key; an unknown key names itself and stands in the group "Other"."""
    by_key = {method.key: method for method in known()}
    if key in by_key:
        return by_key[key]
    if key.startswith("control_"):
        return MethodName(key, f"{readable(key.removeprefix('control_'))} alone", CONTROL)
    probe, _, source = key.partition("_tuned_")
    if probe in by_key and (trained := by_key.get(f"tuned_{source}")) is not None:
        name = f"{by_key[probe].name}, {trained.name.lower().replace('icm', 'ICM')}"
        return MethodName(key, name, by_key[probe].group)
    if (base := key.removesuffix(_REBALANCED)) in by_key:
        return _rebalanced(by_key[base])
    return MethodName(key, key.replace("_", " "), OTHER)


def in_reading_order(keys: Iterable[str]) -> list[MethodName]:
    """The methods of these keys, each once: group by group, known before unknown ones."""
    methods = [method_of(key) for key in dict.fromkeys(keys)]
    place = {method.key: number for number, method in enumerate(known())}
    return sorted(methods, key=lambda m: (GROUPS.index(m.group), place.get(m.key, len(place))))


_IN_FORMAT = ", format "


def in_format(dataset: str, form: str) -> str:
    """What a set is called in one of several prompt formats; `readable` knows it."""
    return f"{dataset}{_IN_FORMAT}{form}"


def readable(name: str) -> str:
    """A dataset's or feature's name for readers: "pocket/larger_than" -> "Larger than (pocket)".

    Control characters are spelled out: neither terminals nor SVG files take them.
    """
    place, mark, form = name.rpartition(_IN_FORMAT)
    if mark:
        return f"{readable(place)}{mark}{printable(form)}"
    if " + " in name:
        return " + ".join(readable(part) for part in name.split(" + "))
    if name == "none":
        return "No added feature"
    return printable(title_of_feature(name) or title_of(name))
