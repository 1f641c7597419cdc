"""Communication of a step, on a set that is counted by hand, and the model."""

import pytest

from benchmarks.speed import scaling
from benchmarks.speed.sets import SETS
from benchmarks.train.layout import make_layout
from psi_optax.optimizers import _known_groups


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("sizes", scaling.MESHES)
def test_what_is_sent_is_two_numbers_a_group_that_is_cut(sizes, monkeypatch):
    monkeypatch.setattr(_known_groups, "checks_weights", lambda: False)
    layout = make_layout(sizes)
    program, cut = scaling.compiled(SETS["small"], layout, "psi_sgd")
    found = scaling.sent(program)
    if len(sizes) == 1:
        assert (cut, found) == (0, {"operations": {}, "numbers": 0})
        return
    # A device has half of the 8 and 16 groups, along `model`.
    assert (cut, found["numbers"]) == (2, 2 * (8 + 16) // 2)
    assert set(found["operations"]) == {"all-reduce"}
    assert found["operations"]["all-reduce"] <= cut + 1


def test_other_kinds_and_shapes_are_counted():
    program = """
      %a = f32[] all-reduce(%x)
      %b = (f32[2,3]{1,0}, bf16[4]{0}) all-gather-start(%y, %z)
      %c = f32[5]{0} add(%x, %x)
    """
    operations = {"all-reduce": 1, "all-gather": 1}
    expected = {"operations": operations, "numbers": 1 + 6 + 4}
    assert scaling.sent(program) == expected


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        # 20 bytes of 8 million weights, on 8 devices of 1 GB/s.
        ((8 * 10**6, 8, 0, 0), 0.02),
        # 2 sums of 3 messages of 1 ms each.
        ((0, 8, 2, 0), 6e-3),
        # A ring sends 7/4 of 4 bytes each of 25 million numbers, 100 MB/s.
        ((0, 8, 0, 25 * 10**6), 1.75),
        ((1000, 1, 9, 9), 20e-6),
    ],
)
def test_the_model_is_the_sum_of_its_terms(monkeypatch, arguments, seconds):
    for name, value in {"MEMORY": 1e9, "NETWORK": 1e8, "LATENCY": 1e-3}.items():
        monkeypatch.setattr(scaling, name, value)
    assert scaling.seconds(*arguments) == pytest.approx(seconds)


def test_the_table_has_shares_of_the_gradient():
    row = {"set": "x", "weights": 1000, "optimizer": "psi_sgd", "cut": 2}
    row |= {"mesh": {"fsdp": 4, "model": 2}, "operations": {"all-reduce": 3}}
    content = {"parts": {"": {**row, "numbers": 50}}}
    # 50 numbers of 4 bytes beside half of 1000.
    line = scaling.report(content).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[-3:] == ["3 all-reduce", "0", "10.00 %"]
