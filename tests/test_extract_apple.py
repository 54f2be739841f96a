"""Apple's GPUs are taken by themselves, in a dtype that they have; no test here has one."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="hidden states need the extract extra")

from tiny_models import tiny  # noqa: E402

from extract import apple, models  # noqa: E402
from extract.hidden_states import extract  # noqa: E402
from extract.sampling import Sampling, _Noise  # noqa: E402
from jelicit.data.datasets import load_dataset  # noqa: E402
from jelicit.data.prompts import FORMATS  # noqa: E402


@pytest.fixture
def mac(monkeypatch):
    """Makes this machine say that it is a Mac with a GPU and some macOS."""

    def of(version: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(
            torch.backends.mps, "is_macos_or_newer", lambda *wanted: version >= wanted
        )

    return of


def test_auto_takes_the_gpu_of_a_mac(mac, monkeypatch):
    mac((15, 1))
    assert models.usable_device("auto") == "mps"
    # One of NVIDIA's goes first.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert models.usable_device("auto") == "cuda:0"


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert models.usable_device("auto") == "cpu"


def test_a_gpu_of_apples_is_listed_where_another_is_not_to_be_had(mac):
    mac((15, 1))
    with pytest.raises(ValueError, match=r"this machine has cpu, mps$"):
        models.usable_device("cuda:3")


@pytest.mark.parametrize(
    ("version", "saved", "dtype"),
    [
        ((14, 0), torch.bfloat16, torch.bfloat16),
        # Not float16, which ends at 65,504.
        ((13, 6), torch.bfloat16, torch.float32),
        ((13, 6), torch.float16, torch.float16),
        ((15, 1), torch.float64, torch.float32),
        ((15, 1), torch.float32, torch.float32),
    ],
)
def test_weights_keep_their_dtype_where_metal_has_it(mac, version, saved, dtype):
    mac(version)
    model = torch.nn.Linear(2, 2).to(saved)
    model.dtype = saved  # type: ignore[assignment]  # as transformers' models have it
    assert apple.computable(model, "mps").weight.dtype == dtype


def test_on_other_devices_weights_stay_as_they_are(mac):
    mac((13, 6))
    model = SimpleNamespace(dtype=torch.float64)
    assert apple.computable(model, "cpu") is model


def test_a_dtype_that_was_asked_for_and_is_not_there_is_refused_before_loading(mac, monkeypatch):
    mac((13, 6))
    monkeypatch.setattr(models, "usable_device", lambda device: "mps")
    with pytest.raises(ValueError, match=r"dtype bfloat16 on device mps: .*from macOS 14"):
        models.load("pocket", dtype="bfloat16")
    for dtype in ("auto", "float32", "float16"):
        apple.check_dtype(dtype, "mps")
    apple.check_dtype("bfloat16", "cpu")
    mac((14, 0))
    apple.check_dtype("bfloat16", "mps")


def test_noise_is_drawn_in_float64_where_the_device_has_none(monkeypatch):
    class OnMetal:
        """Scores that refuse what a tensor on "mps" refuses."""

        device = torch.device("mps")

        def __init__(self, values):
            self.values, self.shape = values, values.shape

        def double(self):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

        def to(self, device):
            return self.values if torch.device(device).type == "cpu" else self

    sent = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: sent.append(device) or tensor)
    values = torch.arange(6.0).reshape(2, 3)
    sampling = Sampling(temperature=0.7)
    on_cpu = _Noise(["a", "b"], sampling)(None, values)  # type: ignore[arg-type]
    on_metal = _Noise(["a", "b"], sampling)(None, OnMetal(values))  # type: ignore[arg-type]
    assert on_metal.dtype == torch.float32
    assert sent[-1] == torch.device("mps")
    torch.testing.assert_close(on_metal, on_cpu.float())


def test_memory_that_torch_keeps_is_given_back_when_an_extraction_ends(tmp_path, monkeypatch):
    lm, items = tiny("llama"), load_dataset("pocket/arithmetic", max_train=3).train
    given = []
    for backend in (torch.cuda, torch.mps):
        monkeypatch.setattr(
            backend, "empty_cache", lambda name=backend.__name__: given.append(name)
        )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    extract(lm, items, FORMATS["claim"], tmp_path / "cuda", layers=(1,))
    assert given == ["torch.cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    extract(lm, items, FORMATS["claim"], tmp_path / "mps", layers=(1,))
    assert given == ["torch.cuda", "torch.mps"]
