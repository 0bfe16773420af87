"""A device that cannot train is named with a way out, and never silently replaced."""

import pytest
import torch

from labreport.training import device as devices
from labreport.training.device import DeviceError, best_device, check_device, memory_told

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def forget():
    for function in (best_device, check_device):
        function.cache_clear()
    yield
    for function in (best_device, check_device):
        function.cache_clear()


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(devices, "output", lambda *command: "NVIDIA H100 80GB HBM3, 535.104.05")


def no_kernel(device):
    if device.type == "cuda":
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device. Compile with …")
    return torch.ones(4)


def test_the_cpu_passes_and_a_gpu_that_agrees_does(monkeypatch):
    check_device(torch.device("cpu"))
    monkeypatch.setattr(devices, "_gradient", lambda device: torch.ones(4))
    check_device(CUDA)


def test_a_card_that_the_build_cannot_use_is_one_sentence(monkeypatch, card):
    monkeypatch.setattr(devices, "_gradient", no_kernel)
    with pytest.raises(DeviceError, match=r"H100.*no kernel image.*device cpu$"):
        check_device(CUDA)


def test_a_device_with_other_gradients_is_not_believed(monkeypatch):
    monkeypatch.setattr(devices, "_gradient", lambda device: torch.tensor([1.0, 2.0 + 0.1 * (device.type == "mps")]))
    with pytest.raises(DeviceError, match=r"mps computes other gradients"):
        check_device(torch.device("mps"))


def test_a_driver_that_is_too_old_is_told_and_the_cpu_trains(monkeypatch, card, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert best_device() == best_device() == torch.device("cpu")
    said = capsys.readouterr().err
    assert said.count("NVIDIA H100 80GB HBM3 (driver 535.104.05) is there") == 1
    assert "training on the CPU" in said


def test_a_gpu_that_fails_its_trial_is_told_and_the_cpu_trains(monkeypatch, card, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_gradient", no_kernel)
    assert best_device() == torch.device("cpu")
    assert "no kernel image" in capsys.readouterr().err


def test_macs_gpu_is_chosen_only_where_it_agrees_with_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_gradient", lambda device: torch.ones(4))
    assert best_device() == torch.device("mps")
    best_device.cache_clear()
    check_device.cache_clear()
    monkeypatch.setattr(devices, "_gradient", lambda device: torch.ones(4) * (1 + (device.type == "mps")))
    assert best_device() == torch.device("cpu")


def test_want_of_memory_is_one_sentence():
    with (
        pytest.raises(DeviceError, match="cpu has too little memory for batches of 10"),
        memory_told(torch.device("cpu"), 10),
    ):
        torch.empty(2**46)
    with pytest.raises(RuntimeError, match="something else"), memory_told(torch.device("cpu"), 10):
        raise RuntimeError("something else")
