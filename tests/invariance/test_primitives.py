"""Every primitive of JAX has a rule, or a reason to have none."""

import subprocess
import sys

import jax
import pytest

from psi_optax.invariance.analysis.control_flow import CONTROL_FLOW
from psi_optax.invariance.analysis.rules.table import NONLINEAR, RULES
from psi_optax.invariance.jaxprs import CALLS

# Of these versions the lists are complete.
LISTED = {"0.10.2", "0.12.0", "0.12.0.1"}

WITHOUT = {
    "acts on integers, booleans or keys, which have no scale": """
        and not or xor reduce_and reduce_or reduce_xor clz population_count
        mulhi shift_left shift_right_arithmetic shift_right_logical axis_index
        platform_index program_id num_programs lu_pivots_to_permutation
        threefry2x32 threefry4x32 philox2x32 philox4x32 iota_2x32_shape
        random_bits random_clone random_fold_in random_seed random_split
        random_unwrap random_wrap rng_bit_generator rng_uniform
        """,
    "calls code that the program does not show": """
        pallas_call ffi_call pure_callback io_callback call_exported mpmd_map
        cudnn_fusion scaled_dot scaled_matmul scaled_matmul_wrapper
        dot_product_attention_fwd dot_product_attention_fwd_wrapper
        dot_product_attention_bwd dot_product_attention_bwd_wrapper
        dot_product_attention_fp8_fwd dot_product_attention_fp8_fwd_wrapper
        dot_product_attention_fp8_bwd dot_product_attention_fp8_bwd_wrapper
        """,
    "returns nothing that a loss depends on": """
        debug_callback debug_print inspect_sharding dce_sink check
        shape_assertion create_token after_all
        """,
    "packs what scales and what does not in one array": """
        lu geqp3 geqrf ormqr householder_product custom_linear_solve
        """,
    "is of matrices, and not known of a network": """
        cholesky_update eig hessenberg schur symmetric_product tridiagonal
        tridiagonal_solve
        """,
    "takes any function of two elements": """
        reduce reduce_window select_and_scatter
        """,
    "sends to one device, or to some": """
        precv psend ragged_all_to_all pbroadcast_dynamic
        """,
    "is one half of a collective that has a rule": """
        all_gather_start all_gather_done all_gather_reduced_start
        all_to_all_start all_to_all_done pbroadcast_start pbroadcast_done
        ppermute_start ppermute_done psum_start psum_done psum_invariant_start
        reduce_scatter_start reduce_scatter_done
        """,
    "has a result that is still to be summed over devices": """
        preduced unreduced_pmax unreduced_pmin unreduced_psum
        unreduced_psum_start unreduced_reduce_scatter
        unreduced_reduce_scatter_start relayout
        """,
    "stands inside of kernels alone": """
        core_map delay get_global masked_load masked_swap multiple_of run_scoped
        semaphore_read semaphore_signal semaphore_wait pin unpin
        """,
    "is a stage of a transformation, and in no program that is traced": """
        call_hi_primitive call_hi_primitive_linearized create_linear
        custom_jvp_call_jaxpr custom_lin dim_as_value dimension_size empty
        empty2 eq_to eval_jaxpr from_edtype host_local_array_to_global_array
        global_array_to_host_local_array jaxpr_call le_to linear_call lt_to
        remat_opt run_state stage tie to_edtype unreachable xla_metadata_value
        broadcast_to zeros_like
        """,
    "is of boxes, logs and empty refs, which are experiments of JAX": """
        accum_grad_in_ref box_get box_set empty_ref free_ref log_extend log_read
        new_box new_log
        """,
}

# Names that one version has and another has not.
RENAMED = """
    call closed_call log2 one_minus_square polynomial reduced_vary_cast
    reduced_vary_cast_p vary_unreduced_cast vary_unreduced_cast_p
    xla_metadata_call
    """

PROGRAM = """
import gc
import importlib

for module in (
    "jax.ad_checkpoint", "jax.experimental.multihost_utils",
    "jax.experimental.pallas", "jax.experimental.xla_metadata", "jax.export",
    "jax.image", "jax.nn", "jax.random", "jax.scipy.linalg",
    "jax.scipy.special",
):
    importlib.import_module(module)
from jax.extend.core import Primitive

for one in gc.get_objects():
    if isinstance(one, Primitive):
        print(one.name)
"""


@pytest.fixture(scope="module")
def primitives():
    """Return the names of all that a fresh JAX has."""
    if jax.__version__ not in LISTED:
        pytest.skip(f"JAX {jax.__version__} has not been gone through")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert len(found) > 250
    return found


def handled():
    return {*RULES, *NONLINEAR, *CONTROL_FLOW, *CALLS}


def without():
    return {name for names in WITHOUT.values() for name in names.split()}


def test_each_primitive_has_a_rule_or_a_reason(primitives):
    assert not primitives - handled() - without()


def test_no_primitive_has_both():
    assert not handled() & without()
    count = sum(len(names.split()) for names in WITHOUT.values())
    assert count == len(without())


def test_rules_are_of_primitives_that_there_are(primitives):
    assert not handled() - primitives - set(RENAMED.split())
