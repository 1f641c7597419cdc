"""The deliberate faults of `make mutate` are faults of the package as it is."""

import signal
import sys

import pytest

from tests.mutation.faults import FAULTS, Fault
from tests.mutation.run import PACKAGE, ROOT, selection_for, within


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.what)
def test_the_line_that_a_fault_replaces_is_there_once(fault):
    text = (PACKAGE / fault.file).read_text()
    assert fault.apply(PACKAGE) != text


def test_a_fault_of_a_line_that_is_gone_is_an_error(tmp_path):
    (tmp_path / "module.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="its line is not in"):
        Fault("stale", "module.py", "y = 2", "y = 3").apply(tmp_path)


def test_every_room_has_faults_and_tests():
    rooms = {fault.file.partition("/")[0] for fault in FAULTS}
    assert rooms >= {"geometry", "groups", "transforms", "optimizers"}
    assert rooms >= {"invariance"}
    for fault in FAULTS:
        assert all((ROOT / test).exists() for test in selection_for(fault.file))


def test_a_program_without_end_is_ended_and_one_that_waits_is_not():
    endless = within(1, [sys.executable, "-c", "while True: pass"])
    assert endless.returncode == -signal.SIGXCPU
    waits = within(1, [sys.executable, "-c", "import time; time.sleep(1.5)"])
    assert waits.returncode == 0
