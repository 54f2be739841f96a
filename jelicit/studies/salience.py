"""Challenge 1 of Canavan et al. 2026: do methods find the truth, or whatever is more salient?

A feature that has nothing to do with the truth is added to the claims (or is there from the start:
who says it, what it is about), and every method is measured on the label that the prompt asks for
AND on the feature. A method that follows the feature scores high on the wrong column.

    from extract import open_model
    from jelicit.studies import salience

    result = salience.run(open_model("pocket"), dataset=("pocket/arithmetic",), seeds=3)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.datasets import Dataset
from jelicit.data.describe import describe, table
from jelicit.data.features import FEATURES, add_feature, get_feature, plain_id
from jelicit.data.items import digest, load_items, with_target
from jelicit.data.prompts import PromptFormat, after_verdict, get_format
from jelicit.named import slug
from jelicit.results import Finding, print_table
from jelicit.studies import scoring
from jelicit.studies.checks import no_sets, refuse, repeated, same_names
from jelicit.studies.findings import salience_findings
from jelicit.studies.format_rows import by_set_alone, print_formats, without_ensembles
from jelicit.studies.formats import formats_asked
from jelicit.studies.implicit_opinion import IMPLICIT_OPINION, implicit_opinion, misfit
from jelicit.studies.measuring import Measured
from jelicit.studies.model import Cases
from jelicit.studies.prompt_ensembles import ALGORITHM as ENSEMBLES
from jelicit.studies.prompt_ensembles import Member, measure_ensembles
from jelicit.studies.prompt_joint import measure_joint
from jelicit.studies.session import Session
from jelicit.studies.sets import asking, easy_for, load, read_set
from jelicit.studies.settings import PromptedStudySettings
from jelicit.studies.situation import EasySet, Runs, Situation, named
from jelicit.studies.states import States, at_layer
from jelicit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_SETS = ("pocket/arithmetic", "pocket/larger_than", "pocket/facts", "pocket/comments")
FEATURE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Settings(PromptedStudySettings):
    """Measure every method on truth and on a spurious feature.

    Attributes:
        features: Features to add: none, sycophancy, punctuation, tense; each of these said less
            loudly, as sycophancy_faint; random_words, alice, alice_repeated; implicit_opinion, of
            sets that have topics; or one's own as package.module:NAME or file.py:NAME. Sets with
            two labels of their own (facts and party, comments and topic, LIAR) bring their feature
            with them: there each label is asked for in turn and the other one is spurious.
        train_size: Train rows of a run, a multiple of 4; None = 80 % of the largest balanced
            subset.
        joint: Of several formats, also probes of all of them at once, which are fitted to every
            claim in each (format "joint"): ccs_paraphrases and vinc know which rows are wordings of
            one claim.
        labels: Files of labelled items, as icm.py writes them: the supervised probe learns from
            those labels, too ("Supervised by ICM's labels"), on situations that have these items.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    features: tuple[str, ...] = ("none", *FEATURES)
    seeds: int = 8
    train_size: int | None = None
    joint: bool = False
    labels: tuple[Path, ...] = ()

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems() + no_sets(self.dataset)
        problems += feature_problems(self.features)
        if self.joint and len(self.format or ()) < 2:
            problems.append("--joint takes several prompt formats; name them by --format")
        size = self.train_size
        if size is not None and (size < 4 or size % 4):
            problems.append(f"--train-size {size}: allowed are multiples of 4, from 4")
        problems += [
            f"--labels {path}: there is no such file; name one that icm.py wrote"
            for path in self.labels
            if not Path(path).is_file()
        ]
        return problems


def feature_problems(features: Sequence[str]) -> list[str]:
    """Problems of --features: unknown or repeated ones, none at all."""
    problems = repeated("--features", features)
    for name in features:
        if name not in ("none", IMPLICIT_OPINION):
            try:
                get_feature(name)
            except ValueError as error:
                problems.append(f"--features: {error}")
    return problems if features else ["--features is empty; name at least one, or none"]


# --- the plan ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All situations of one set.

    Attributes:
        plain: Its claims as they are: what layers are chosen on.
        situations: What is measured.
        dataset: The set, to be described; None of cases of one's own, and where an earlier plan
            has it.
    """

    plain: Situation
    situations: tuple[Situation, ...]
    dataset: Dataset | None = None


def plan(settings: Settings, session: Session) -> list[Plan]:
    """The situations of every set, with all text loaded and nothing extracted.

    Raises:
        ValueError: No item has a truth value, no feature fits a set, or two sets share a name.
    """
    if isinstance(session.model, Cases):
        situations = tuple(situation for situation, _ in session.model.cases)
        return [Plan(plain=each, situations=(each,)) for each in situations]
    plans = [each for name in settings.dataset for each in _plans(name, settings, session)]
    refuse(same_names([each.plain.title for each in plans]))
    return plans


def _plans(name: str, settings: Settings, session: Session) -> Iterator[Plan]:
    """A set in each format."""
    dataset = read_set(name, session, max_rows=settings.max_rows)
    for place, form in enumerate(formats_asked(settings)):
        plan = _plan(name, dataset, form, session)
        yield plan if place == 0 else replace(plan, dataset=None)


def _plan(name: str, dataset: Dataset, form: PromptFormat | None, session: Session) -> Plan:
    other = next((t for t in dataset.targets if t != "label"), None)
    if other is not None and _independent(dataset, other):
        situations = _asked_in_turn(name, other, form, session)
        plain = replace(situations[0], feature="none", spurious=None)
    else:
        if other is not None:
            session.say(f"{name}: {other!r} cannot be told apart from the label; left out")
        target = dataset.targets[0] if form is None else form.target
        plain = asking(dataset, target, session, form=form)
        situations = _with_features(plain, session.settings.features, session)
    easy = easy_for(dataset, session, test=plain.test)
    return Plan(
        dataset=dataset,
        plain=replace(plain, easy=easy),
        situations=tuple(
            replace(each, easy=_read_alike(easy, each, session)) for each in situations
        ),
    )


def _read_alike(easy: EasySet | None, situation: Situation, session: Session) -> EasySet | None:
    """The easy set, read where the situation's own claims are read.

    Of a feature that stands after the verdict it has the feature, too, on items of its own choice:
    hidden states at the verdict say nothing of those at the words that follow it.
    """
    if easy is None or not any(map(after_verdict, situation.train)):
        return easy
    # One's own has its name here, and is found by where it is declared.
    asked_for = map(get_feature, _of_claims(session.settings.features))
    feature = next(each for each in asked_for if each.name == situation.feature)
    if reason := feature.misfit(easy.items, get_format(easy.format)):
        session.say(f"{situation.title}: no easy set, {easy.name} cannot have it: {reason}")
        return None
    return replace(easy, items=tuple(add_feature(easy.items, feature, seed=FEATURE_SEED)))


def _of_claims(features: Sequence[str]) -> list[str]:
    """The features that are in single claims, as they were asked for."""
    return [name for name in features if name not in ("none", IMPLICIT_OPINION)]


def _independent(dataset: Dataset, other: str) -> bool:
    """Whether all four cells of label and other label are there, in train and in test."""
    cells = [
        {(item.label, item.alt_labels[other]) for item in with_target(items, other)}
        for items in (dataset.train, dataset.test)
    ]
    return all(len({cell for cell in of if cell[0] is not None}) == 4 for of in cells)


def _asked_in_turn(
    name: str, other: str, form: PromptFormat | None, session: Session
) -> tuple[Situation, ...]:
    """The label with the other one spurious, and the other way round; of a format, what it asks."""
    rows = session.settings.max_rows
    hub_root = session.settings.hub_root
    dataset = load(name, hub_root, max_train=rows, max_test=rows, balance=other)
    return tuple(
        replace(
            asking(dataset, target, session, spurious=spurious, form=form),
            feature=f"{named(spurious)}, asked for {named(target)}",
        )
        for target, spurious in (("label", other), (other, "label"))
        if form is None or form.target == target
    )


def _with_features(
    plain: Situation, features: Sequence[str], session: Session
) -> tuple[Situation, ...]:
    situations = []
    for named_so in features:
        if named_so == "none":
            situations.append(plain)
            continue
        if named_so == IMPLICIT_OPINION:
            if reason := misfit(plain):
                session.say(f"{plain.dataset}: {IMPLICIT_OPINION} left out, {reason}")
            else:
                situations.append(implicit_opinion(plain, seed=FEATURE_SEED))
            continue
        feature = get_feature(named_so)
        if reason := feature.misfit((*plain.train, *plain.test), get_format(plain.format)):
            session.say(f"{plain.dataset}: {feature.name} left out, {reason}")
            continue
        train, test = (
            tuple(add_feature(items, feature, seed=FEATURE_SEED))
            for items in (plain.train, plain.test)
        )
        name = feature.name
        situations.append(replace(plain, feature=name, spurious=name, train=train, test=test))
    if not situations:
        raise ValueError(f"{plain.dataset}: no feature of {', '.join(features)} fits; add none")
    return tuple(situations)


# --- measuring -----------------------------------------------------------------------------------


def measure(plans: Sequence[Plan], session: Session) -> None:
    """Extract, fit and measure the situations of every set; of several formats, ensembles, too."""
    several = len(formats_asked(session.settings)) > 1
    members = [one for each in plans for one in measure_set(each, session, members=several)]
    if several:
        measure_ensembles(members, session)
        if session.settings.joint:
            measure_joint(members, session, size=session.settings.train_size)


def measure_apart(plans: Sequence[Plan], session: Session) -> None:
    """As `measure`, without ensembles over prompts."""
    for each in plans:
        measure_set(each, session)


def measure_set(plan: Plan, session: Session, *, members: bool = False) -> list[Member]:
    """Extract, fit and measure the situations of one set.

    Args:
        plan: The set.
        session: The run.
        members: Whether what ensembles over prompts are made of is kept.
    """
    _describe(plan, session)
    layers = session.layers_of(plan.plain, runs_on_plain(plan, session.settings))
    return [
        measure_situation(situation, layers, session, members=members)
        for situation in plan.situations
    ]


def runs_on_plain(plan: Plan, settings: Settings) -> Runs:
    """The runs that a layer is chosen by."""
    return Runs.balanced(plan.plain, settings.seeds, size=settings.train_size)


def _describe(plan: Plan, session: Session) -> None:
    if plan.dataset is None:
        return
    shown = describe(plan.dataset)
    own = {label for item in plan.plain.train for label in ("label", *item.alt_labels)}
    # One's own has its name in rows, and is found by where it is declared.
    asked_as = {get_feature(f).name: f for f in _of_claims(session.settings.features)}
    for feature in [s.spurious for s in plan.situations if s.spurious in asked_as]:
        if feature in own:
            continue
        plain = replace(plan.dataset, train=plan.plain.train)
        rows = describe(plain, features=[asked_as[feature]], format=plan.plain.format)
        shown += [row for row in rows if row["target"] == feature]
    session.console.print(table(shown))


def measure_situation(
    situation: Situation, layers: tuple[int, ...], session: Session, *, members: bool = False
) -> Member:
    """Extract, fit and measure one situation unless its rows are there; see `measure_set`."""
    settings, states = session.settings, session.states(situation, layers)
    given = labels_given(situation, settings.labels, session)
    run = session.run(
        situation,
        states,
        {
            "feature": situation.feature,
            "feature_seed": FEATURE_SEED,
            "asked": named(situation.target),
            "train_size": settings.train_size,
            "labels": [digest(load_items(path)) for path in settings.labels],
            # Runs without them are not taken for runs with them.
            **({"members": ENSEMBLES} if members else {}),
        },
        lambda: _measured(situation, states, given, session, members=members),
        note=_spelled(states),
    )
    return Member(situation=situation, states=states, layers=states.layers, run=run)


def _spelled(states: States) -> str:
    """How much of the texts the model knows by letters only."""
    share = states.texts.get("byte_share")
    return "" if share is None else f"{share:.0%} of its letters spelled one by one"


def _measured(
    situation: Situation,
    states: States,
    given: np.ndarray | None,
    session: Session,
    *,
    members: bool,
) -> Measured:
    settings = session.settings
    runs = Runs.balanced(situation, settings.seeds, size=settings.train_size)
    measured = session.methods(situation, runs, states, members=members)
    if session.prompts_asked:
        measured += session.prompts(
            situation, Runs.balanced(situation, settings.prompts.runs, size=settings.train_size)
        )
    if given is not None:
        measured += session.probes(
            situation,
            Runs.on(~np.isnan(given), settings.seeds),
            states,
            ("supervised",),
            situation.boot(settings.boot),
            names={"supervised": "icm_supervised"},
            taught=given,
            members=members,
        )
    measured.rows = _with_salience(measured.rows, situation, states)
    return measured


def _with_salience(
    rows: Sequence[Mapping[str, Any]], situation: Situation, states: States
) -> list[dict[str, Any]]:
    """Rows with the salience of both labels at their layer."""
    made = []
    for layer in states.layers:
        pairs = at_layer(states.train, layer)
        salience = {t.role: scoring.salience_of(pairs, t.train) for t in situation.targets()}
        columns = {
            "salience_truth": salience["truth"],
            "salience_feature": salience.get("spurious", float("nan")),
        }
        # What has no layer (prompts, controls) stands beside the probes of each.
        here = [row for row in rows if np.isnan(row["layer"]) or row["layer"] == layer]
        made += [{**row, **columns, "layer": layer} for row in here]
    return made


def labels_given(
    situation: Situation, paths: Sequence[Path], session: Session
) -> np.ndarray | None:
    """Labels [N] of the situation's train rows in these files, nan where they have none.

    None without files, where the prompt asks for another label than the files are about, or where
    they do not have both labels among the situation's rows.
    """
    if not paths or situation.target != "label":
        return None
    # A claim keeps its label whatever is said beside it.
    known = {plain_id(item): item.label for path in paths for item in load_items(path)}
    own = [known.get(plain_id(item)) for item in situation.train]
    given = np.array([np.nan if label is None else float(label) for label in own])
    if {0.0, 1.0} <= set(given.tolist()):
        return given
    session.say(
        f"{situation.title}: the files of --labels do not have both labels of its train rows; "
        "left out"
    )
    return None


# --- what is shown -------------------------------------------------------------------------------


def show(rows: pd.DataFrame, session: Session) -> None:
    """A table per set and layer; of several formats, one that sets them side by side."""
    for place, of_place in rows.groupby(rows["dataset"] + ", layer " + rows["layer"].astype(str)):
        shown = by_set_alone(of_place)
        print_table(shown, title=f"AUROC: {place}", console=session.console)
    print_formats(rows, session.console)


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Per layer: one figure per set, and one that orders all features by salience."""
    drawn = {}
    per_set = rows.groupby("dataset", sort=False)["layer"].unique()
    for dataset, layers in per_set.items():
        for layer in layers:
            suffix = f"-layer{layer}" if len(layers) > 1 else ""
            of_layer = rows.loc[(rows["dataset"] == dataset) & (rows["layer"] == layer)]
            stem = f"{slug(str(dataset))}{suffix}"
            drawn[f"salience-{stem}"] = figures.salience_figure(of_layer, str(dataset))
            if "ece" in of_layer and bool(of_layer["ece"].notna().to_numpy().any()):
                calibration = figures.calibration_figure(of_layer, str(dataset))
                drawn[f"calibration-{stem}"] = calibration
    if per_set.map(len).max() == 1 and bool(rows["salience_feature"].notna().to_numpy().any()):
        drawn["salience-all"] = figures.salience_scatter(rows)
    return drawn


def _findings(rows: pd.DataFrame) -> list[Finding]:
    """The paper's, of each prompt: an ensemble over prompts is none of its cases."""
    return salience_findings(without_ensembles(rows))


STUDY = Study(
    name="salience",
    title="Salient features that are not the truth",
    lead=(
        "Do methods find the truth, or whatever is more salient? A feature that has nothing to do "
        "with the truth is in the claims, and every method is measured on the label that the "
        "prompt asks for (truth) and on the feature (spurious). A method that follows the feature "
        "is high on the spurious label and near 0.75 or below on the truth."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=_findings,
)
run = STUDY.run
