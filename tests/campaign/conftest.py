"""The whole campaign takes most of an hour: it runs where it is asked for by its marker."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the whole campaign unless the words of -m name it."""
    if "campaign" in config.option.markexpr:
        return
    whole = [item for item in items if item.get_closest_marker("campaign")]
    items[:] = [item for item in items if item not in whole]
    config.hook.pytest_deselected(items=whole)
