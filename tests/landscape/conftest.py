"""A network, and its curvature, in double precision."""

import numpy as np
import pytest

from psi_optax._compat import enable_x64
from psi_optax.landscape import hessian
from tests.landscape.network import GROUPS, dense, loss, make_net


@pytest.fixture(scope="session")
def net():
    with enable_x64(True):
        return make_net()


@pytest.fixture(scope="module")
def curved(net):
    """The curvature of the network, its eigenvalues, descending, its params."""
    params, args = net
    with enable_x64(True):
        curvature = hessian(loss, params, *args, groups=GROUPS)
        values = np.linalg.eigvalsh(dense(curvature, params))[::-1]
        return curvature, values, params
