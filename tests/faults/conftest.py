"""Entries of the registry by name, as the contract suite has them."""

from tests.conformance.conftest import entry as entry
from tests.conformance.conftest import tx as tx
