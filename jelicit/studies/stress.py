"""Which methods survive where unsupervised methods fail? One scorecard of all challenges.

Runs the studies of paper A's challenges (salience, imbalance, claims that are neither true nor
false), transfer to other sets and sensitivity to the prompt, with any methods, and sets their worst
cases side by side:

    from extract import open_model
    from jelicit.studies import stress

    result = stress.run(open_model("pocket"), methods=("ccs", "my_method.py:METHOD"))
    stress.scorecard(result.rows)

A method survives a challenge by a fixed rule, `stress_card.RULE`: in its worst case the whole 95 %
interval of its share of the ceiling lies at two thirds or above. It fails where the whole interval
lies below; otherwise these questions leave it open. A case counts where the supervised probe
reaches 0.75: nobody finds what the hidden states do not hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from jelicit import figures
from jelicit.method_groups import WITHOUT
from jelicit.probes.registry import PAPER, PEERS, PROPOSALS
from jelicit.results import Finding, TextTable, run_id
from jelicit.studies.checks import given, unknown
from jelicit.studies.session import Session
from jelicit.studies.settings import StudySettings
from jelicit.studies.stress_card import (
    ALGORITHM,
    CEILING,
    COUNTS,
    RULE,
    card_rows,
    scorecard,
    verdicts,
)
from jelicit.studies.stress_cases import PLAIN, Case
from jelicit.studies.stress_parts import CHALLENGES, Part, plan_part, settings_of, with_twins
from jelicit.studies.stress_spread import read_spread, spread_folder, spread_name, spread_rows
from jelicit.studies.stress_tables import (
    print_challenge,
    print_scorecard,
    print_text_table,
    spread_table,
)
from jelicit.studies.study import Study, StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RULE", "STUDY", "Settings", "run", "scorecard", "spread"]

SIGNS = ("oracle", "easy")
OF_CHALLENGES = {
    "salience": ("features",),
    "imbalance": ("shares",),
    "impossible": ("impossible",),
    "transfer": ("others",),
    "prompts": ("formats",),
}
"""Options that one challenge alone reads."""


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Run every challenge with the same methods, and end in one scorecard.

    Attributes:
        dataset: Sets by name, or folders; every challenge is put to each of them.
        methods: Which probes: paper A's, labelled ones, the field's proposals, by name; and your
            own as package.module:NAME or file.py:NAME. The supervised probe is always measured,
            since it is the ceiling.
        challenges: Which of salience, imbalance, impossible, transfer and prompts.
        features: Features to add, for salience; random_words, alice and alice_repeated, for
            example, beside these.
        shares: Shares of true claims among the train rows, for imbalance.
        impossible: The set without truth values, for impossible.
        others: Further sets that transfer trains and tests on. The same statements in the other
            polarity are always among them where they are a set (cities and neg_cities).
        formats: Prompt formats to compare, for prompts; default: those of claim, statement and
            asking that fit all sets. literal and professor are claim with an instruction in front.
        sign: Who picks the sign of an unlabelled direction: oracle (train labels), or easy (labels
            of the easy set).
        layers: A hidden-state index, or "best": the layer with the best CCS AUROC on plain train
            rows (an oracle).
    """

    dataset: tuple[str, ...] = ("pocket/arithmetic", "pocket/larger_than")
    methods: tuple[str, ...] = (*PAPER, *PEERS, *PROPOSALS)
    challenges: tuple[str, ...] = CHALLENGES
    features: tuple[str, ...] = ("sycophancy", "punctuation", "tense")
    shares: tuple[float, ...] = (0.0, 0.1, 1.0)
    impossible: str = "pocket/opinions"
    others: tuple[str, ...] = ()
    formats: tuple[str, ...] | None = None
    sign: str = "oracle"
    max_rows: int = 400

    @property
    def measured(self) -> tuple[str, ...]:
        """The methods, the ceiling among them."""
        ceiling = () if CEILING[0] in self.methods else (CEILING[0],)
        return (*self.methods, *ceiling)

    @property
    def sets_of_transfer(self) -> tuple[str, ...]:
        """The sets that probes are trained and tested on, with both polarities."""
        return with_twins((*self.dataset, *(o for o in self.others if o not in self.dataset)))

    @property
    def sets_read(self) -> tuple[str | None, ...]:
        """The sets that were named, those of single challenges among them."""
        return (*super().sets_read, *self.others, self.impossible)

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        problems += unknown("--challenges", self.challenges, CHALLENGES)
        problems += unknown("--sign", (self.sign,), SIGNS)
        if self.fixed_layers is not None and len(self.fixed_layers) > 1:
            problems.append(f"--layers {' '.join(self.layers)}: give one, or best")
        if self.format is not None and len(self.format) > 1:
            words = " ".join(map(str, self.format))
            problems.append(f"--format {words}: give one; --formats are compared")
        if self.formats is not None and len(set(self.formats)) < 2:
            problems.append(f"--formats {' '.join(self.formats)}: name two or more to compare")
        problems += [line for line in self._idle() if line not in problems]
        return problems if problems else self._of_challenges()

    def _idle(self) -> list[str]:
        """Options of challenges that are not asked for."""
        return [
            f"{option} does nothing without the challenge {challenge}: leave it out"
            for challenge, names in OF_CHALLENGES.items()
            if challenge not in self.challenges
            for option in given(self, names)
        ]

    def _of_challenges(self) -> list[str]:
        """What the studies behind the challenges find wrong, each once."""
        problems: list[str] = []
        for challenge in (PLAIN, *self.challenges):
            if challenge == "transfer" and len(self.sets_of_transfer) < 2:
                continue  # left out, and told
            problems += settings_of(challenge, self).problems()
        return list(dict.fromkeys(problems))


def plan(settings: Settings, session: Session) -> list[Part]:
    """Plain claims and every challenge, with all text loaded and nothing extracted.

    Raises:
        ValueError: What a challenge's study refuses, or no challenge arises.
    """
    planned = [plan_part(name, settings, session) for name in (PLAIN, *settings.challenges)]
    parts = [part for part in planned if part is not None]
    if not parts:
        raise ValueError("no challenge arises with these sets: name others with --dataset")
    return parts


def measure(parts: Sequence[Part], session: Session) -> None:
    """Carry out every study; make of what they left whatever is not there yet.

    That is the scorecard, and what AUROCs on the plain claims are uncertain from.
    """
    for part in parts:
        session.say(f"challenge: {part.challenge}")
        part.carry_out()
        session.folder.doubts += part.session.folder.doubts
    settings, results = session.settings, session.folder.results
    runs = {part.challenge: part.session.folder.runs for part in parts}
    chosen = {"experiment": "stress", "runs": runs, "boot": settings.boot, "sign": settings.sign}
    made_of = hashlib.sha256(repr(sorted(runs.items())).encode()).hexdigest()
    run = run_id(chosen, made_of, {"scorecard": ALGORITHM})
    session.folder.runs.append(run)
    about = {"boot": settings.boot, "sign": settings.sign, "model": session.model.name}

    @cache
    def cases() -> list[Case]:
        return [case for part in parts for case in part.cases()]

    if results.has(run):
        session.say(f"scorecard: reused (run {run}, same runs of all challenges)")
    else:
        results.write(run, card_rows(cases(), **about), chosen)
    spreads, name = spread_folder(session.folder.folder), spread_name(run)
    if not spreads.has(name) and (rows := spread_rows(cases(), **about)):
        spreads.write(name, rows, chosen)


# --- what is shown -------------------------------------------------------------------------------


def show(rows: pd.DataFrame, session: Session) -> None:
    """A table per challenge, the scorecard, and what AUROCs are uncertain from."""
    worst = scorecard(rows)
    left_out = rows.loc[~rows["counted"].astype(bool)]
    for place in dict.fromkeys(zip(left_out["dataset"], left_out["feature"], strict=True)):
        session.doubt(
            f"{', '.join(place)}: the supervised probe does not reach {COUNTS:g} or was not "
            "measured; the case does not count"
        )
    for challenge, here in worst.groupby("challenge", sort=False):
        print_challenge(pd.DataFrame(here), str(challenge), session.console)
    if worst.empty:
        session.say("there is no scorecard: no case counts")
    else:
        print_scorecard(worst, session.console)
    for table in tables(rows, session):
        print_text_table(table, session.console)


def tables(rows: pd.DataFrame, session: Session) -> list[TextTable]:
    """What AUROCs are uncertain from, where plain claims were measured."""
    (run,) = rows["run_id"].unique()
    told = read_spread(session.folder.folder, str(run))
    return [] if told.empty else [spread_table(told)]


def spread(result: StudyResult) -> pd.DataFrame:
    """What the AUROC of every method on the plain claims is uncertain from, a row per set.

    Standard deviations, in units of AUROC, of one fit under one prompt: `sd_questions`, `sd_seeds`,
    `sd_prompts`, `sd_prompt_seed`; see `jelicit.studies.spread`. nan where one seed or one prompt
    cannot tell; `below_zero` names those whose estimate lay below 0, and are 0 therefore.

    Args:
        result: Of `run`.
    """
    (run,) = result.rows["run_id"].unique()
    return read_spread(result.folder, str(run))


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Methods down, challenges across."""
    worst = scorecard(rows)
    return {} if worst.empty else {"stress": figures.stress_figure(worst)}


def findings(rows: pd.DataFrame) -> list[Finding]:
    """Paper A's conclusion: no method without labels withstands all challenges."""
    said = [
        of
        for _, block, of in verdicts(scorecard(rows).to_dict("records"))  # type: ignore[arg-type]
        if block == WITHOUT and of
    ]
    failing = sum("fails" in of for of in said)
    surviving = sum(set(of) == {"survives"} for of in said)
    all_fail = True if said and failing == len(said) else None
    return [
        Finding(
            claim="Every method without labels fails at least one challenge",
            measured=f"{failing} of {len(said)} fail one, {surviving} survive all",
            appears=False if surviving else all_fail,
        )
    ]


STUDY = Study(
    name="stress",
    title="Stress test: which methods survive",
    lead=(
        "Which methods survive where unsupervised methods fail? Every challenge is put to every "
        "method on the same questions, and judged by its worst case. The loss is against "
        "the plain claims of the same set, the share is of what the supervised probe finds above "
        f"chance, and intervals are of one bootstrap of questions for all. {RULE} Methods are "
        "compared with those that see the same labels."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=findings,
    tables=tables,
)
run = STUDY.run
