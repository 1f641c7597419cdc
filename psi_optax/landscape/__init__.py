"""Curvature, stability and shape of a loss in scale-invariant units."""

from psi_optax.landscape.curvature import (
    Curvature as Curvature,
    average_loss as average_loss,
    dataset_hessian as dataset_hessian,
    hessian as hessian,
)
from psi_optax.landscape.lines import (
    GradientProbe as GradientProbe,
    gradient_probe as gradient_probe,
    loss_surface as loss_surface,
)
from psi_optax.landscape.noise import (
    GradientNoise as GradientNoise,
    gradient_noise as gradient_noise,
)
from psi_optax.landscape.plot import (
    plot_edge as plot_edge,
    plot_spectrum as plot_spectrum,
    plot_surface as plot_surface,
)
from psi_optax.landscape.space import (
    TangentSpace as TangentSpace,
    geodesic as geodesic,
    tangent_space as tangent_space,
)
from psi_optax.landscape.spectrum import (
    Eigenpairs as Eigenpairs,
    Estimate as Estimate,
    Spectrum as Spectrum,
    eigenpairs as eigenpairs,
    spectral_density as spectral_density,
    trace as trace,
)
from psi_optax.landscape.stability import (
    stability_threshold as stability_threshold,
)
