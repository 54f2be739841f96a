"""Assistants: a language model whose answers are optimised against a reward model.

Group-relative policy optimisation by trl's GRPOTrainer: for every question several answers are
sampled, and what is better than their mean is made more likely. A penalty on the divergence from
the start (`beta`) holds the policy near the model that it was (Wen et al. 2025, section 4.4, use RL
against each reward model; algorithm and settings are choices of this project).

    from extract.policy import start_policy, train_policy

    policy = train_policy("pocket", ["What is 2 + 3?"], reward, "runs/policy")
    policy.sample(["What is 2 + 3?"], n=4, start=start_policy("pocket"))

A policy is a folder that `AutoModelForCausalLM` and every other command load, with a card.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from extract import training_run
from extract.bfloat16_training import quick_attention
from extract.models import LanguageModel, load
from extract.sampling import plain_generation
from extract.trained_folder import read_card, there, work_folder
from extract.trainer_settings import Fit, lora_config, on_one_gpu, precision_of
from jelicit.data.preferences import ASKED, wrong_question
from jelicit.named import slug

ALGORITHM = 3
"""Raised when the same settings and rows lead to other weights than before."""

ROWS = 64
"""Answers that are sampled side by side."""

EMPTY_BELOW = 5.0
"""How far below the worst other reward of a batch an answer without any text is put."""


class Rewards(Protocol):
    """What a policy is optimised against."""

    @property
    def name(self) -> str:
        """What cards call it."""
        ...

    @property
    def digest(self) -> str:
        """What pins it."""
        ...

    def rewards(self, questions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Rewards [n] of answers; -inf = nothing to judge."""
        ...


@dataclass(frozen=True, kw_only=True)
class PolicyFit(Fit):
    """How a policy is optimised.

    Attributes:
        asked: How a question is put, with {question}; an answer is what the model goes on with, up
            to the end of its line.
        steps: Of optimisation.
        samples: Answers to a question in one step, which are compared with each other.
        batch: Answers in one step, of batch / samples questions.
        beta: Weight of the divergence from the start; 0 = none.
        temperature: Of sampling.
        max_tokens: Most tokens of an answer.

    Raises:
        ValueError: A value that makes no sense; the message names it.
    """

    asked: str = ASKED
    steps: int = 100
    samples: int = 8
    batch: int = 64
    beta: float = 0.02
    temperature: float = 1.0
    max_tokens: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := wrong_question(self.asked):
            raise ValueError(f"asked {self.asked!r} {wrong}")
        for name, low in {"steps": 1, "samples": 2, "max_tokens": 1}.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {low} or more")
        if self.batch % self.samples:
            raise ValueError(
                f"batch is {self.batch}, which {self.samples} samples of a question do not "
                f"divide; allowed: multiples of {self.samples}"
            )
        if not self.beta >= 0 or not self.temperature > 0:
            raise ValueError(
                f"beta is {self.beta} and temperature {self.temperature}; allowed: 0 or more, and "
                "above 0"
            )


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Answers to q questions, n of each.

    Attributes:
        answers: [q, n], without space around them.
        tokens: int [q, n], the tokens of each, its end among them.
        kl: float64 [q, n], nats: the divergence of the policy from the start along each answer,
            summed over its tokens. Its mean estimates the KL of whole answers, with less variance
            than the log-ratio, since each token's divergence is exact. nan where there is no start.
    """

    answers: list[list[str]]
    tokens: np.ndarray
    kl: np.ndarray


class Policy:
    """A language model that answers questions.

    Args:
        lm: The model.
        asked: How a question is put.
    """

    def __init__(self, lm: LanguageModel, asked: str = ASKED, *, folder: Path | None = None):
        self.lm, self.asked, self.folder = lm, asked, folder
        self.name = lm.name if folder is None else slug(folder.name)
        self.card = {} if folder is None else read_card(folder)

    @cached_property
    def ends(self) -> list[int]:
        """Tokens that end an answer."""
        return ends_of(self.lm)

    def sample(
        self,
        questions: Sequence[str],
        *,
        n: int = 1,
        seed: int = 0,
        temperature: float = 1.0,
        max_tokens: int = 24,
        start: Policy | None = None,
    ) -> Samples:
        """Answers to questions.

        Args:
            questions: q of them.
            n: Answers to each.
            seed: Of what is drawn.
            temperature: Of sampling; 0 = the most likely token each time.
            max_tokens: Most tokens of an answer.
            start: The model whose divergence is measured, of the same tokens.
        """
        prompts = [self.asked.format(question=q) for q in questions for _ in range(n)]
        answers: list[str] = []
        tokens, kl = np.zeros(len(prompts), int), np.full(len(prompts), np.nan)
        with training_run.own_seeds(seed):
            for begin in range(0, len(prompts), ROWS):
                rows = slice(begin, begin + ROWS)
                drawn = self._draw(prompts[rows], temperature, max_tokens)
                answers += self._texts(drawn)
                tokens[rows] = drawn.mask.sum(1).cpu().numpy()
                if start is not None:
                    kl[rows] = divergence(self.lm, start.lm, drawn)
        shape = (len(questions), n)
        return Samples(
            answers=[answers[q * n : (q + 1) * n] for q in range(len(questions))],
            tokens=tokens.reshape(shape),
            kl=kl.reshape(shape),
        )

    @torch.inference_mode()
    def _draw(self, prompts: Sequence[str], temperature: float, max_tokens: int) -> Drawn:
        ids = [self.lm.tokenizer(prompt)["input_ids"] for prompt in prompts]
        longest, pad = max(map(len, ids)), _padding(self.lm)
        rows = torch.full((len(ids), longest), pad)
        mask = torch.zeros_like(rows)
        for row, each in enumerate(ids):  # on the left: answers begin side by side
            rows[row, longest - len(each) :] = torch.tensor(each)
            mask[row, longest - len(each) :] = 1
        sampled = temperature > 0
        config = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=sampled,
            **({"temperature": temperature, "top_k": 0} if sampled else {}),
            eos_token_id=self.ends,
            pad_token_id=pad,
        )
        device = self.lm.model.device
        rows, mask = rows.to(device), mask.to(device)
        with plain_generation(self.lm.model):
            made = self.lm.model.generate(
                input_ids=rows, attention_mask=mask, generation_config=config
            )
        answer = made[:, longest:]
        ended = torch.isin(answer, torch.tensor(self.ends, device=device))
        # All up to the first end, and the end itself.
        before = ended.int().cumsum(1) - ended.int()
        return Drawn(ids=made, context=mask, mask=(before == 0).int())

    def _texts(self, drawn: Drawn) -> list[str]:
        answer = drawn.ids[:, drawn.context.shape[1] :]
        kept = [row[keep.bool()].tolist() for row, keep in zip(answer, drawn.mask, strict=True)]
        texts = self.lm.tokenizer.batch_decode(kept, skip_special_tokens=True)
        return [first_line_of(text) for text in texts]


@dataclass(frozen=True)
class Drawn:
    """What was sampled.

    Attributes:
        ids: Tokens of prompts and answers [n, P + A].
        context: Which tokens of the prompts count [n, P].
        mask: Which tokens of the answers count, their ends among them [n, A].
    """

    ids: torch.Tensor
    context: torch.Tensor
    mask: torch.Tensor


@torch.inference_mode()
def divergence(policy: LanguageModel, start: LanguageModel, drawn: Drawn) -> np.ndarray:
    """KL(policy || start) of the next token, summed along each answer: nats [n]."""
    begin = drawn.context.shape[1]
    attended = torch.cat([drawn.context, drawn.mask], 1)
    places = attended.cumsum(1).sub(1).clamp(min=0)
    logs = [
        lm.model(
            input_ids=drawn.ids.to(lm.model.device),
            attention_mask=attended.to(lm.model.device),
            position_ids=places.to(lm.model.device),
            use_cache=False,
        )
        .logits[:, begin - 1 : -1]
        .float()
        .log_softmax(-1)
        .to(drawn.ids.device)
        for lm in (policy, start)
    ]
    each = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
    return (each * drawn.mask).sum(1).double().cpu().numpy()


def ends_of(lm: LanguageModel) -> list[int]:
    """Tokens that end an answer: the model's ends of text, and the end of a line."""
    config = lm.model.generation_config.eos_token_id
    own = config if isinstance(config, list) else [config]
    line = lm.tokenizer.encode("\n", add_special_tokens=False)
    ends = [*own, lm.tokenizer.eos_token_id, *(line if len(line) == 1 else [])]
    return list(dict.fromkeys(each for each in ends if each is not None))


def first_line_of(text: str) -> str:
    """The answer in what a model went on with: its first line that has text."""
    return (text.strip().splitlines() or [""])[0].strip()


def _padding(lm: LanguageModel) -> int:
    pad = lm.tokenizer.pad_token_id
    return ends_of(lm)[0] if pad is None else pad


def start_policy(model: str | LanguageModel, asked: str = ASKED) -> Policy:
    """A model as it is, as a policy."""
    return Policy(load(model) if isinstance(model, str) else model, asked)


def open_policy(folder: str | os.PathLike[str], *, device: str = "auto") -> Policy:
    """A policy that was trained before."""
    path = Path(folder)
    card = read_card(path)
    return Policy(load(path, device=device), card.get("fit", {}).get("asked", ASKED), folder=path)


def train_policy(
    model: str | LanguageModel,
    questions: Sequence[str],
    reward: Rewards,
    folder: str | os.PathLike[str],
    fit: PolicyFit | None = None,
    *,
    about: Mapping[str, Any] | None = None,
) -> Policy:
    """Optimises a policy against a reward model; read back if it is there.

    The same model, questions, reward model and settings give the same weights on a CPU. A training
    that was killed goes on from its last checkpoint and ends the same.

    Args:
        model: What it begins with: as of `extract.models.load`, or loaded.
        questions: What is asked. No right answer is looked at.
        reward: The reward model.
        folder: Where the policy goes.
        fit: How it is optimised.
        about: What the card says beside.

    Raises:
        FileExistsError: The folder holds something else.
        ImportError: The libraries for training are not installed.
        ValueError: There are fewer questions than one step asks.
    """
    training_run.require_training()
    folder, fit = Path(folder), fit or PolicyFit()
    lm = load(model) if isinstance(model, str) else model
    asked = list(dict.fromkeys(questions))
    decides = _plan(lm, asked, reward, fit)
    key = training_run.key_of(**decides)
    if there(folder, key):
        return open_policy(folder, device=lm.device)
    card = {
        **decides,
        "key": key,
        "base_name": lm.name,
        "reward_name": reward.name,
        "rows": len(asked),
        "about": dict(about or {}),
    }
    with work_folder(folder, key) as work, training_run.own_seeds(fit.seed):
        trainer = _trainer(lm, asked, reward, fit, work)
        prompts = lm.tokenizer([fit.asked.format(question=each) for each in asked])["input_ids"]
        with quick_attention(trainer, max(map(len, prompts)) + fit.max_tokens):
            log = training_run.train(trainer, f"policy {folder.name}")
        card["curve"] = training_run.curve(
            log, "reward", "reward_std", "kl", "completions/mean_length"
        )
        training_run.save(trainer, lm, folder, card, page=_page)
    return open_policy(folder, device=lm.device)


def _plan(
    lm: LanguageModel, questions: Sequence[str], reward: Rewards, fit: PolicyFit
) -> dict[str, Any]:
    """All that decides the result."""
    if len(questions) < fit.batch // fit.samples:
        raise ValueError(
            f"{len(questions)} questions for steps of {fit.batch // fit.samples}: give more "
            "questions, or a smaller batch"
        )
    return {
        "what": "policy",
        "algorithm": ALGORITHM,
        "base": lm.digest,
        "reward": reward.digest,
        "questions": training_run.key_of(questions=questions),
        "fit": asdict(fit),
        "precision": precision_of(lm),
    }


def _trainer(
    lm: LanguageModel, questions: Sequence[str], reward: Rewards, fit: PolicyFit, work: Path
) -> Any:
    from datasets import Dataset

    trl: Any = importlib.import_module("trl")

    start = training_run.start_folder(lm, work)
    config = trl.GRPOConfig(
        output_dir=str(work / "checkpoints"),
        max_steps=fit.steps,
        num_generations=fit.samples,
        max_completion_length=fit.max_tokens,
        temperature=fit.temperature,
        beta=fit.beta,
        **fit.arguments(lm, fit.steps),
    )
    rows = [{"prompt": fit.asked.format(question=each), "question": each} for each in questions]
    loader: Any = AutoModelForCausalLM
    with training_run.silent():
        model = loader.from_pretrained(start, dtype=torch.float32)
        # The library masks what stands behind any of these, and the folder keeps them.
        model.generation_config.eos_token_id = ends_of(lm)
        return trl.GRPOTrainer(
            model=model,
            reward_funcs=_reward_function(reward),
            args=on_one_gpu(config),
            train_dataset=Dataset.from_list(rows),
            processing_class=training_run.own_tokenizer(start),
            peft_config=lora_config(fit.lora(lm), "CAUSAL_LM"),
        )


def _reward_function(reward: Rewards) -> Any:
    """The reward model as the trainer asks for it."""

    def rewarded(completions: Any, question: Any, **kwargs: Any) -> list[float]:
        return finite(reward.rewards(question, [first_line_of(text) for text in completions]))

    rewarded.__name__ = "reward_model"
    return rewarded


def finite(rewards: np.ndarray) -> list[float]:
    """Rewards with a number for answers without any text, below all others of the batch."""
    judged = rewards[np.isfinite(rewards)]
    worst = float(judged.min()) if judged.size else 0.0
    return np.where(np.isfinite(rewards), rewards, worst - EMPTY_BELOW).tolist()


def _page(card: Mapping[str, Any]) -> str:
    curve = card["curve"]
    rows = {
        "Base": f"{card['base_name']} (`{card['base'][:16]}`)",
        "Reward model": f"{card['reward_name']} (`{card['reward'][:16]}`)",
        "Questions": f"{card['rows']} (`{card['questions'][:16]}`)",
        **{f"About: {name}": value for name, value in card["about"].items()},
        "Reward, first and last ten steps": ", ".join(
            f"{np.mean([each['reward'] for each in part]):.3f}"
            for part in (curve[:10], curve[-10:])
        ),
        **{f"Setting: {name}": f"`{value!r}`" for name, value in card["fit"].items()},
        **{f"Version: {name}": value for name, value in card["versions"].items()},
    }
    return (
        "# Assistant\n\nA language model whose answers were optimised against a reward model. "
        "What it is rewarded for is not what is true: look at both.\n\nA question is put so, and "
        f"the answer is the rest of the line:\n\n```text\n{card['fit']['asked']}\n```\n\n"
        f"{training_run.table(rows)}"
    )
