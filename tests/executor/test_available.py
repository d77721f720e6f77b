import sys
from importlib.machinery import ModuleSpec

import executor


def test_available_without_torch(monkeypatch):
    """Without torch the executor says so, in place of a failing import."""
    monkeypatch.setattr("executor.find_spec", lambda _name: None)
    assert executor.available() is False


def test_available_finds_torch_and_does_not_import_it(monkeypatch):
    """With torch installed the answer is yes, and torch stays unloaded."""
    loaded = "torch" in sys.modules
    monkeypatch.setattr("executor.find_spec", lambda name: ModuleSpec(name, None) if name == "torch" else None)
    assert executor.available() is True
    assert ("torch" in sys.modules) == loaded
