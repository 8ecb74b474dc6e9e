"""The paths that tests of the mathematics go over."""

from sfumato.diffusion.level import (
    Flow,
    VarianceExploding,
    VariancePreserving,
    alphas_cumprod,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    zero_terminal_snr,
)

TABLE = alphas_cumprod(scaled_linear_betas())
PATHS = {
    "scaled-linear": VariancePreserving(TABLE),
    "zero-snr": VariancePreserving(zero_terminal_snr(TABLE)),
    "linear": VariancePreserving(alphas_cumprod(linear_betas())),
    "cosine": VariancePreserving(alphas_cumprod(cosine_betas())),
    "flow": Flow(),
    "shifted-flow": Flow(shift=3.0),
    "exploding": VarianceExploding(),
}
