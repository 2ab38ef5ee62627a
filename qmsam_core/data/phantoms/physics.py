"""Imaging physics shared by the phantoms: blur, noise, fields, projections and display windows."""

from __future__ import annotations

import cv2
import numpy as np

from .shapes import smooth_noise


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian point spread of `sigma` pixels; the first axis of three-dimensional grey volumes is the slice axis and stays sharp."""
    if image.ndim == 3 and image.shape[-1] != 3:
        return np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in image])
    return cv2.GaussianBlur(image, (0, 0), sigma)


def window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Display window: `low` becomes 0, `high` 255, uint8."""
    return np.clip((values - low) * (255.0 / (high - low)) + 0.5, 0, 255).astype(np.uint8)


def percentile_window(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> np.ndarray:
    """Display window between two percentiles, uint8; as the challenge prepares MR and PET."""
    bottom, top = np.percentile(values, (low, high))
    return window(values, bottom, max(top, bottom + 1e-6))


def poisson(expected: np.ndarray, counts: float, rng: np.random.Generator) -> np.ndarray:
    """Counting noise: `expected` >= 0 times `counts` quanta, drawn and scaled back; float32."""
    return (rng.poisson(np.maximum(expected, 0) * counts) / counts).astype(np.float32)


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of a complex signal with Gaussian noise `sigma` in both channels, as MR images have it."""
    real, imaginary = rng.normal(0, sigma, (2, *signal.shape)).astype(np.float32)
    return np.hypot(signal + real, imaginary)


def k_space_cut(planes: np.ndarray, share: float) -> np.ndarray:
    """Planes (D,H,W) kept to the central `share` of spatial frequencies, which blurs and rings at edges as a short acquisition does."""
    spectrum = np.fft.fftshift(np.fft.fft2(planes), axes=(-2, -1))
    for axis in (-2, -1):
        side = planes.shape[axis]
        outside = np.abs(np.arange(side) - side // 2) > share * side / 2
        spectrum[(..., outside, slice(None)) if axis == -2 else (..., outside)] = 0
    return np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1))).real.astype(np.float32)


def bias_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth multiplicative coil sensitivity, mean about 1, relative deviation `strength`."""
    field = smooth_noise(shape[-2:], max(shape[-2:]) / 3, rng) + rng.normal(0, 0.7) * np.linspace(-1, 1, shape[-2])[:, None]
    return np.exp(strength * field).astype(np.float32)


def speckle(shape: tuple[int, ...], sigma_y: float, sigma_x: float, rng: np.random.Generator) -> np.ndarray:
    """Fully developed speckle amplitude, mean 1: the magnitude of a complex Gaussian field of the given correlation in pixels."""
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    real, imaginary = (cv2.GaussianBlur(part, (0, 0), sigmaX=max(sigma_x, 0.2), sigmaY=max(sigma_y, 0.2)) for part in parts)
    amplitude = np.hypot(real, imaginary)
    return amplitude / amplitude.mean()


def beam_noise(attenuation: np.ndarray, photons: float, pixel_mm: float, rng: np.random.Generator, angles: int = 90) -> np.ndarray:
    """Noise of a CT slice, in the units of `attenuation`: photon counting in every ray, carried into the image by filtered back-projection.

    Only the noise is reconstructed (reconstruction is linear), so the anatomy keeps its sharpness; thick, dense paths get few photons,
    which gives the streaks between bones.

    Args:
        attenuation: (H,W) square, 1/mm.
        photons: a ray through air.
        pixel_mm: pixel side.
        angles: views over 180 degrees.
    """
    side = attenuation.shape[0]
    turns = [cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, 1.0) for angle in np.arange(angles) * 180.0 / angles]
    rays = np.stack([cv2.warpAffine(attenuation, turn, (side, side)).sum(axis=0) for turn in turns]) * pixel_mm
    expected = np.maximum(photons * np.exp(-rays), 2.0)
    error = rays + np.log(np.maximum(rng.poisson(expected), 1) / photons)
    ramp = np.abs(np.fft.rfftfreq(side)) * np.cos(np.pi * np.fft.rfftfreq(side))  # ramp with a smooth (soft-tissue) kernel
    filtered = np.fft.irfft(np.fft.rfft(error, axis=1) * ramp, n=side, axis=1).astype(np.float32)
    noise = np.zeros((side, side), dtype=np.float32)
    for turn, row in zip(turns, filtered):
        plane = np.ascontiguousarray(np.broadcast_to(row, (side, side)))
        noise += cv2.warpAffine(plane, turn, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return noise * np.float32(np.pi / angles / pixel_mm)


def shade(height: np.ndarray, light: tuple[float, float, float], relief: float) -> np.ndarray:
    """Lambert shading 0..1 of a height map (pixels) lit from direction `light` (x, y, z towards the viewer); `relief` scales the slopes."""
    dy, dx = np.gradient(height)
    norm = np.sqrt((relief * dx) ** 2 + (relief * dy) ** 2 + 1)
    lx, ly, lz = np.asarray(light) / np.linalg.norm(light)
    return np.clip((-relief * dx * lx - relief * dy * ly + lz) / norm, 0, 1).astype(np.float32)


def colour_image(image: np.ndarray) -> np.ndarray:
    """Float (H,W,3) in 0..1 to uint8."""
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def grey_image(image: np.ndarray) -> np.ndarray:
    """Float (H,W) in 0..1 to uint8 with three equal channels."""
    return np.repeat(colour_image(image)[..., None], 3, axis=2)
