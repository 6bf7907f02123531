"""BatchNorm folded into the kernel before it: one factor and one bias per channel."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, each float32 [C]."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float

    def affine(self, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a, b), float64 [C]: BatchNorm turns x + bias into a * x + b. The square root is taken in float32."""
        a = self.gamma.astype(np.float64) / np.sqrt(self.variance + self.epsilon)
        return a, self.beta + a * (bias - self.mean)
