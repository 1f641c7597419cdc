"""Fixtures for tests that are parametrized over the registry by name."""

import pytest

from tests.registry import ENTRIES


@pytest.fixture
def entry(name, request):
    """An entry, with the promotion of dtypes that it needs."""
    if ENTRIES[name].promotes:
        request.getfixturevalue("optax_promotion")
    return ENTRIES[name]


@pytest.fixture
def tx(entry):
    return entry.build()
