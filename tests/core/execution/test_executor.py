"""How executors are found by name, and what is said where one is not."""

from types import SimpleNamespace

import pytest

from metaloss.core.execution import executor
from metaloss.errors import MetalossError


def test_an_executor_is_found_by_the_name_that_its_distribution_announces(near):
    assert executor.names() == ["near", "ray"]
    assert executor.find("near", "x=near") is near


def test_a_plugin_that_is_missing_is_named(near):
    with pytest.raises(
        MetalossError, match=r"^x=ray needs the plugin metaloss-ray: pip install me"
    ):
        executor.find("ray", "x=ray")


def test_another_name_is_unknown(near):
    with pytest.raises(MetalossError, match=r"^x=neer: unknown executor 'neer': did you mean 'n"):
        executor.find("neer", "x=neer")


def test_a_plugin_that_fails_to_load_is_one_line(monkeypatch):
    def load():
        raise ImportError("no wheels")

    points = [SimpleNamespace(name="near", load=load)]
    monkeypatch.setattr(executor, "entry_points", lambda group: points)
    with pytest.raises(MetalossError, match=r"^x=near failed to load: ImportError: no wheels$"):
        executor.find("near", "x=near")
