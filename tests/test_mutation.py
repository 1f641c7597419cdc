"""The deliberate faults of `make mutate` are faults of the package as it is."""

import pytest

from tests import mutation


@pytest.mark.parametrize("fault", mutation.FAULTS, ids=lambda f: f.what)
def test_the_line_that_a_fault_replaces_is_there_once(fault):
    file = mutation.ROOT / "psi_optax" / fault.file
    assert fault.apply(file) != file.read_text()


def test_a_fault_of_a_line_that_is_gone_is_an_error(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("x = 1\n")
    with pytest.raises(ValueError, match="its line is not in"):
        mutation.Fault("stale", "module.py", "y = 2", "y = 3").apply(file)
