import pytest

torch = pytest.importorskip("torch")

from executor.device import device  # noqa: E402
from hwprofiles.faults import InputError  # noqa: E402


def test_cpu():
    """A CPU talks gloo, is one device for all ranks, has no queue, and its two clocks run on."""
    found = device("cpu")
    assert (found.backend, found.count) == ("gloo", 1)
    assert found.claim(5) == found.of(3) == torch.device("cpu")
    found.synchronize()
    (wall, busy), (later, busier) = found.clock(), found.clock()
    assert later >= wall
    assert busier >= busy
    assert 2**20 < found.memory() < 2**60


def test_gpus_are_dealt_in_turn(monkeypatch):
    """With GPUs here the same switch gives NCCL and the local rank's GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = device()
    assert (found.kind, found.backend) == ("cuda", "nccl")
    assert found.of(6) == torch.device("cuda", 2)


@pytest.mark.parametrize(("kind", "words"), [("cuda", "no GPU that torch can use"), ("tpu", "auto, cpu or cuda")])
def test_devices_that_are_not_here(monkeypatch, kind, words):
    """Asking for what is not here is one clear sentence."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=words):
        device(kind)
