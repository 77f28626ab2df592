"""Networks with random weights, and their values in float64, for tests of backends."""

from __future__ import annotations

import numpy as np

from neuralsdf.backends import get_backend
from neuralsdf.program.network import Architecture, Network, initialise

#: Widths of hidden layers: the default, one and several widths, multiples of SIMD registers and not.
HIDDEN = [(32,) * 8, (16, 16), (64, 64, 64), (128, 128), (1,), (3, 5), (24,) * 4, (32, 7, 64)]

#: The activation functions in numpy.
NUMPY = {
    "relu": lambda z: np.maximum(z, 0),
    "sine": lambda z: np.sin(30 * z),
    "softplus": lambda z: np.logaddexp(0, 100 * z) / 100,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "tanh": np.tanh,
}


def exact_values(network: Network, points: np.ndarray) -> np.ndarray:
    """The network in float64, layer by layer."""
    a = network.architecture
    x = points.astype(np.float64)
    *hidden, last = list(a.layers(network.weights.astype(np.float64)))
    for kernel, bias in hidden:
        x = NUMPY[a.activation](x @ kernel + bias)
    value = (x @ last[0] + last[1])[:, 0]
    return np.tanh(value) if a.output == "tanh" else value


def random_network(
    architecture: Architecture, count: int, seed: int = 0
) -> tuple[Network, np.ndarray, np.ndarray]:
    """A network with nonzero biases, points (count, 3) and targets (count,), float32."""
    rng = np.random.default_rng(seed)
    weights = initialise(architecture, seed)
    weights += rng.normal(scale=0.05, size=weights.shape).astype(np.float32)
    points = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    return Network(architecture, weights), points, rng.uniform(-1, 1, count).astype(np.float32)


def surface_network(seed: int = 0) -> Network:
    """A random network with a surface inside the ball, and a gradient norm of about one."""
    architecture = Architecture((24, 32, 32))
    network, points, _ = random_network(architecture, 4000, seed)
    _, gradients = get_backend("torch").compile(network).evaluate_with_gradient(points)
    weights = network.weights.copy()
    weights[-33:] /= np.quantile(np.linalg.norm(gradients, axis=1), 0.9)
    network = Network(Architecture((24, 32, 32), output="linear"), weights)
    weights[-1] -= np.median(get_backend("torch").compile(network).evaluate(points))
    return Network(network.architecture, weights)
