"""What a step sends, on a set that is counted by hand, and the model."""

import pytest

from benchmarks import scaling
from benchmarks.step_time_sets import ParameterSet
from benchmarks.train.layout import make_layout

# 8 and 16 groups; the head has none.
SMALL = ParameterSet(
    {"a/kernel": (24, 8), "b/kernel": (8, 16), "head": (16, 8)}, r".*/kernel"
)
MACHINE = scaling.Machine(memory=1e9, network=1e8, latency=1e-3)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("sizes", scaling.MESHES)
def test_what_is_sent_is_three_numbers_a_group_that_is_cut(sizes):
    program, cut = scaling.compiled(SMALL, make_layout(sizes), "psi_sgd")
    found = scaling.sent(program)
    if len(sizes) == 1:
        assert (cut, found) == (0, scaling.Sent({}, 0))
        return
    # A device has half of the groups, along `model`.
    assert (cut, found.numbers) == (2, 3 * (8 + 16) // 2)
    assert set(found.operations) == {"all-reduce"}
    assert found.operations["all-reduce"] <= cut + 1


def test_other_kinds_and_shapes_are_counted():
    program = """
      %a = f32[] all-reduce(%x)
      %b = (f32[2,3]{1,0}, bf16[4]{0}) all-gather-start(%y, %z)
      %c = f32[5]{0} add(%x, %x)
    """
    expected = scaling.Sent({"all-reduce": 1, "all-gather": 1}, 1 + 6 + 4)
    assert scaling.sent(program) == expected


def test_the_model_is_the_sum_of_its_three_terms():
    # 20 bytes of 8 million weights, on 8 devices of 1 GB/s.
    assert scaling.seconds(8 * 10**6, 8, MACHINE) == pytest.approx(0.02)
    # 2 sums of 3 messages of 1 ms each.
    assert scaling.seconds(0, 8, MACHINE, operations=2) == pytest.approx(6e-3)
    # A ring sends 7/4 of 4 bytes each of 25 million numbers, 100 MB/s.
    ring = scaling.seconds(0, 8, MACHINE, numbers=25 * 10**6)
    assert ring == pytest.approx(1.75)
    alone = scaling.seconds(1000, 1, MACHINE, operations=9, numbers=9)
    assert alone == pytest.approx(20e-6)


def row(mesh, numbers):
    sent = scaling.Sent({"all-reduce": 3} if numbers else {}, numbers)
    return {
        "set": "x",
        "weights": 1000,
        "mesh": mesh,
        "optimizer": "psi_sgd",
        "cut": 2,
        **sent._asdict(),
    }


def test_table_and_figure(tmp_path):
    meshes = zip(scaling.MESHES, (0, 0, 50), strict=True)
    rows = [row(mesh, numbers) for mesh, numbers in meshes]
    lines = scaling.table(rows).splitlines()
    assert "nothing" in lines[2]
    # 50 numbers beside half of 1000, of 4 bytes each.
    assert "3 all-reduce | 0 " in lines[4]
    assert "10.00 %" in lines[4]
    scaling.figure(rows).savefig(tmp_path / "figure.png")
