"""BatchNorm as the kernel before it sees it: one factor and one bias per channel."""

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
        """(a, b), float64 [C]: BatchNorm makes a * x + b of x + bias. The root is float32's."""
        a = self.gamma.astype(np.float64) / np.sqrt(self.variance + self.epsilon)
        return a, self.beta + a * (bias - self.mean)
