"""Seconds as a sum of parts, each with a factor to be learnt, and offsets in log space: fitted robustly, pulled towards priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

HUBER = 1.5  # residuals of so many standard deviations and more count linearly: a job that met a stalled disk teaches little
MOST = 400  # newest observations that are learnt from
SCATTER_WEIGHT = 4.0  # the prior scatter counts as much as so many observations


@dataclass(frozen=True)
class Point:
    """One duration: ``parts`` in seconds by the prior's factors, ``features`` that multiply the whole by exp(value × weight)."""

    parts: Mapping[str, float]
    features: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Priors:
    """Standard deviations, in log space, of the factors by name and of the features by the text before a ``=`` in their name."""

    parts: Mapping[str, float]
    features: Mapping[str, float]
    scatter: float  # of one job about the model, before any is seen


@dataclass(frozen=True)
class LogFit:
    """Weights of parts and features (0 where the prior holds), their covariance, and the scatter of jobs; all in log space."""

    priors: Priors
    weights: Mapping[str, float]
    covariance: np.ndarray
    scatter: float

    def predict(self, point: Point) -> tuple[float, float]:
        """Return median seconds, and the standard deviation of their logarithm: of what is not known, and of one job."""
        parts = {name: value * np.exp(self.weights.get(name, 0.0)) for name, value in point.parts.items() if value > 0}
        total = sum(parts.values())
        if total <= 0:
            return 0.0, self.scatter
        slope = {name: value / total for name, value in parts.items()} | dict(point.features)
        offset = sum(self.weights.get(name, 0.0) * value for name, value in point.features.items())
        known = np.array([slope.get(name, 0.0) for name in self.weights])
        variance = float(known @ self.covariance @ known) if known.size else 0.0
        # What nothing was seen of is as uncertain as its prior.
        variance += sum(
            (_spread(self.priors, name) * value) ** 2 for name, value in slope.items() if name not in self.weights
        )
        return float(total * np.exp(offset)), float(np.sqrt(variance + self.scatter**2))


def fit(points: Sequence[Point], seconds: Sequence[float], priors: Priors) -> LogFit:
    """Learn from durations, oldest first. No points give the priors back.

    Maximum a posteriori with Gaussian priors and Huber's loss on the logarithm of the durations; the covariance is that of the
    Gauss-Newton approximation at the solution.
    """
    points, seconds = points[-MOST:], seconds[-MOST:]
    names = [name for name in priors.parts if any(point.parts.get(name, 0.0) > 0 for point in points)]
    names += sorted({name for point in points for name in point.features})
    if not points:
        return LogFit(priors, {}, np.zeros((0, 0)), priors.scatter)
    parts = np.array([[point.parts.get(name, 0.0) for name in names] for point in points])
    features = np.array([[point.features.get(name, 0.0) for name in names] for point in points])
    spread = np.array([_spread(priors, name) for name in names])
    target = np.log(np.asarray(seconds, float))
    scatter, weights = priors.scatter, np.zeros(len(names))
    for _ in range(2):  # once with the scatter assumed, once with the scatter seen
        weights, covariance, used = _solve(parts, features, target, spread, scatter, weights)
        residuals = _residuals(weights, parts, features, target)
        clipped = np.minimum(np.abs(residuals), 2 * HUBER * scatter)
        squares = SCATTER_WEIGHT * priors.scatter**2 + float(np.sum(clipped**2))
        scatter = float(np.sqrt(squares / (SCATTER_WEIGHT + len(points) - used)))
    return LogFit(priors, dict(zip(names, map(float, weights), strict=True)), covariance, scatter)


def _solve(
    parts: np.ndarray, features: np.ndarray, target: np.ndarray, spread: np.ndarray, scatter: float, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return weights, covariance, and how many observations the weights use up."""
    from scipy.optimize import least_squares

    count = len(target)

    def errors(weights: np.ndarray) -> np.ndarray:
        return np.concatenate([_residuals(weights, parts, features, target) / scatter, weights / spread])

    def slopes(weights: np.ndarray) -> np.ndarray:
        scaled = parts * np.exp(weights)
        shares = scaled / scaled.sum(axis=1, keepdims=True)
        return np.concatenate([(shares + features) / scatter, np.diag(1 / spread)])

    def loss(squares: np.ndarray) -> np.ndarray:
        """Huber's for the data, plain squares for the priors: value, first and second derivative."""
        far = (squares > HUBER**2) & (np.arange(squares.size) < count)
        root = np.sqrt(np.maximum(squares, 1e-30))
        return np.array(
            [
                np.where(far, 2 * HUBER * root - HUBER**2, squares),
                np.where(far, HUBER / root, 1.0),
                np.where(far, -HUBER / (2 * root**3), 0.0),
            ]
        )

    found = least_squares(errors, start, slopes, loss=loss, max_nfev=50)
    covariance = np.linalg.inv(found.jac.T @ found.jac)
    data = found.jac[:count]
    return found.x, covariance, float(np.einsum("ij,jk,ik->", data, covariance, data))


def _residuals(weights: np.ndarray, parts: np.ndarray, features: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.log((parts * np.exp(weights)).sum(axis=1)) + features @ weights - target


def _spread(priors: Priors, name: str) -> float:
    if name in priors.parts:
        return priors.parts[name]
    return priors.features[name.split("=", 1)[0]]
