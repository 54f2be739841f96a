"""The server scorer against a real vLLM with the pocket model, and the script that starts it.

Without vLLM (`python -m extract serve` makes its environment) only the script's parts are tested.
"""

import itertools
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch
from stub_server import FAULTS, Proxy, spoiling

from extract import cli, models, serve
from extract.local_scorer import LocalScorer
from extract.server_scorer import ServerScorer
from jelicit.data.datasets import load_dataset
from jelicit.icm import Objective, Prompter, SearchSettings, leave_one_out, search

WORDS = (" True", " False")
LONG = (" True indeed", " not True at all", " not")
BLOCK = 32
READY = 600
"""Seconds that vLLM may take to start."""


# --- the script ----------------------------------------------------------------------------------


def test_what_is_left_out_and_what_belongs_to_extras_is_not_installed():
    listed = [
        'torch==2.13.0+cpu; platform_machine == "x86_64"',
        "torchvision; platform_machine != 's390x'",
        "torchcodec>=0.14",
        "torch-like",
        'datasets; extra == "bench"',
    ]
    assert serve.needed(listed) == [listed[0], listed[3]]


def test_an_environment_counts_when_it_was_made_to_the_end(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.VARIABLE, raising=False)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    assert serve.find(tmp_path) is None
    (tmp_path / "jelicit-made").touch()
    assert serve.find(tmp_path) == python
    other = tmp_path / "python"
    monkeypatch.setenv(serve.VARIABLE, str(other))
    with pytest.raises(FileNotFoundError, match=f"{serve.VARIABLE} is .*python, which is no file"):
        serve.find(tmp_path)
    other.touch()
    assert serve.find(tmp_path) == other


def test_a_pip_that_fails_is_named_with_what_it_needs(tmp_path, monkeypatch):
    made, ran = [], []
    monkeypatch.setattr(serve.venv, "create", lambda folder, **_: made.append(folder))

    def failing(words, **_):
        ran.append([str(word) for word in words])
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(serve.subprocess, "run", failing)
    with pytest.raises(OSError, match=r"pip could not install .* needs Linux, Python 3\.11"):
        serve.make(tmp_path)
    python = str(tmp_path / "bin" / "python")
    assert (made, ran[0][:4]) == ([tmp_path], [python, "-m", "pip", "install"])
    monkeypatch.delenv(serve.VARIABLE, raising=False)
    assert serve.find(tmp_path) is None


def test_the_command_becomes_the_server(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.touch()
    monkeypatch.setenv(serve.VARIABLE, str(python))
    became = []
    monkeypatch.setattr(cli.os, "execve", lambda *words: became.append(words))
    cli.Serve(port=8123, max_model_len=2048, cache_gb=3).main()
    [(program, words, environment)] = became
    options = dict(itertools.pairwise(words))
    assert (program, words[0]) == (python, str(python))
    assert options["--model"] == str(models.POCKET)
    assert options["--served-model-name"] == "pocket"
    assert (options["--port"], options["--max-model-len"]) == ("8123", "2048")
    assert (environment["VLLM_CPU_KVCACHE_SPACE"], environment["HF_HUB_OFFLINE"]) == ("3", "1")
    assert cli.Serve().env == serve.FOLDER


# --- the server ----------------------------------------------------------------------------------


def free_port():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A vLLM that serves the pocket model."""
    python = serve.find()
    if python is None:
        pytest.skip(f"no vLLM: {serve.HINT}")
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    environment = serve.environment("pocket")
    with log.open("w") as file:
        server = subprocess.Popen(
            serve.command(python, "pocket", port=port),
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
        )
    try:
        until = time.monotonic() + READY
        while not healthy(port):
            if server.poll() is not None or time.monotonic() > until:
                pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def local():
    threads = torch.get_num_threads()
    yield models.load("pocket")
    torch.set_num_threads(threads)


def claim(rng):
    a, b = rng.randrange(50), rng.randrange(50)
    right = rng.random() < 0.5
    total = a + b + (0 if right else rng.choice([-2, -1, 1, 2]))
    return (
        f"Question: What is {a} + {b}?\nClaim: The answer is {total}.\n"
        f"I think this claim is{WORDS[not right]}\n\n"
    )


def asked(example):
    return example[: example.rindex(" is") + 3]


def fresh(n, *, seed):
    """Leave-one-out prompts of n claims that no other test has sent: nothing of them is cached."""
    rng = random.Random(seed)
    shown = [claim(rng) for _ in range(n)]
    start = f"Test {seed}.\n\n"
    return [(start, *context, asked(target)) for context, target in leave_one_out(shown)]


@pytest.mark.parametrize(
    ("match", "words"), [("words", WORDS), ("tokens", WORDS), ("tokens", LONG)]
)
def test_the_scores_are_those_of_the_model_in_this_process(url, local, match, words):
    prompts = [*fresh(8, seed=1), ("Question",), ("a b c", " d")]
    scorer = ServerScorer(url, match=match, worth_a_request=64)
    assert (scorer.able.token_ids, scorer.able.exact) == (True, True)
    found = scorer.score(prompts, words)
    wanted = LocalScorer(local, match=match).score(prompts, words)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert scorer.bounded == 0


@pytest.mark.parametrize("token_ids", [True, False])
def test_where_it_shows_the_likeliest_only_the_rest_is_bounded(url, local, token_ids):
    """As vLLMs without `logprob_token_ids` do, and servers that name tokens by their texts."""
    prompts = [*fresh(8, seed=2), *((f"{word} ",) for word in ("Claim", "seven", "sun", "A"))]
    scorer = ServerScorer(url, match="tokens")
    texts = [scorer.tokenizer.decode([token]) for token in scorer.able.likeliest]
    scorer.able = replace(scorer.able, exact=False, token_ids=token_ids)
    if not token_ids:
        scorer.able = replace(scorer.able, likeliest=tuple(texts))
    found = scorer.score(prompts, WORDS)
    wanted = LocalScorer(local, match="tokens").score(prompts, WORDS)
    inside = np.abs(found - wanted) < 2e-4
    assert 16 <= inside.sum() < inside.size
    assert scorer.bounded == (~inside).sum()
    assert np.all(found[~inside] > wanted[~inside])


def scored(url, prompts, *, concurrency):
    """A scorer that scored prompts, and the requests that it sent for them, with their answers."""
    proxy = Proxy(url, every=0)
    with spoiling(proxy) as through:
        scorer = ServerScorer(through, concurrency=concurrency, worth_a_request=32)
        skip = len(proxy.passed)
        scorer.score(prompts, WORDS)
    return scorer, proxy.passed[skip:]


def test_the_cache_holds_what_the_order_predicts(url):
    """Asked one by one, a prompt finds the whole blocks that it begins with alike one before it."""
    scorer, passed = scored(url, fresh(16, seed=3), concurrency=1)
    blocks: set[tuple[int, ...]] = set()
    predicted = []
    for request, _ in passed:
        tokens = tuple(request["prompt"])
        ends = range(BLOCK, len(tokens) + 1, BLOCK)
        # The last token is always read: its output is what is asked for.
        known = [end for end in ends if end < len(tokens) and tokens[:end] in blocks]
        predicted.append(max(known, default=0))
        blocks |= {tokens[:end] for end in ends}
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for _, answer in passed]
    assert cached == predicted
    assert scorer.cached_tokens == sum(predicted) > 0.5 * scorer.prompt_tokens


def test_at_the_same_time_nothing_warmed_is_read_twice(url):
    """With many requests under way, at least the blocks of the beginning sent before are cached."""
    scorer, passed = scored(url, fresh(32, seed=4), concurrency=16)
    alone = {tuple(r["prompt"]) for r, _ in passed if "logprobs" not in r}
    assert len(alone) > 8
    for request, answer in passed:
        tokens = tuple(request["prompt"])
        before = max(
            (len(t) for t in alone if len(t) < len(tokens) and tokens[: len(t)] == t), default=0
        )
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached >= before // BLOCK * BLOCK
    assert scorer.tokens_read < 0.25 * scorer.prompt_tokens


@pytest.fixture(scope="module")
def sums():
    """24 claims of the pocket world with their true labels."""
    return load_dataset("pocket/arithmetic", seed=0, max_train=24).train


def test_one_leave_one_out_evaluation_agrees_with_the_local_scorer(url, local, sums):
    """Mutual predictability: the mean signed log-odds of each label after all the others."""
    labels = [bool(item.label) for item in sums]
    found = {}
    for scorer in (ServerScorer(url), LocalScorer(local)):
        prompter = Prompter(scorer, sums, "claim")
        asks = list(leave_one_out([(n, label) for n, label in enumerate(labels)]))
        scores = prompter.ask([(context, target) for context, (target, _) in asks])
        judged = [label for _, (_, label) in asks]
        found[type(scorer)] = Objective(alpha=1).weighted(scores, judged, n_items=len(sums))
    assert found[ServerScorer] == pytest.approx(found[LocalScorer], abs=1e-4)
    assert found[ServerScorer] > 1


def test_one_search_ends_with_the_labels_of_the_local_scorer(url, local, sums):
    items, settings = sums[:10], SearchSettings(initial=4, draws=8)
    found = search(ServerScorer(url), items, "claim", settings)
    wanted = search(LocalScorer(local), items, "claim", settings)
    assert (found.labels, found.start) == (wanted.labels, wanted.start)
    assert found.labels != found.start


def test_with_every_fifth_request_spoiled_the_scores_agree(url):
    prompts = fresh(24, seed=6)
    proxy = Proxy(url)
    with spoiling(proxy) as through:
        scorer = ServerScorer(through, backoff=0.05, timeout=10, worth_a_request=32)
        found = scorer.score(prompts, WORDS)
    np.testing.assert_allclose(found, ServerScorer(url).score(prompts, WORDS), atol=2e-4)
    assert set(proxy.spoiled) == set(FAULTS)
    assert scorer.retried >= 5


def test_a_prompt_may_be_as_long_as_the_server_can_read(url, local):
    scorer = ServerScorer(url)
    assert scorer.server.context == local.context - 1 == 8191
    text = (" is" * 8190,)  # and BOS
    np.testing.assert_allclose(
        scorer.score([text], WORDS), LocalScorer(local).score([text], WORDS), atol=2e-3
    )
    with pytest.raises(ValueError, match=r"prompt 1 has 8192 tokens .* reads at most 8191"):
        scorer.score([("a",), (text[0] + " is",)], WORDS)


def test_its_refusals_are_clear(url):
    with pytest.raises(ValueError, match="serves pocket, not 'llama'"):
        ServerScorer(url, model="llama")
    with pytest.raises(ValueError, match=r"status 400\): .*Requested sample logprobs of 21.*20"):
        ServerScorer(url, top_logprobs=21)
    with pytest.raises(ValueError, match=f"did you mean {url}"):
        ServerScorer(url.removesuffix("/v1"))
