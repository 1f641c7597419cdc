"""Entries of the registry by name, as the contract suite has them."""

from tests.conformance.conftest import entry as entry, tx as tx
