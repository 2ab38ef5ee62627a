"""Deployment: export to ONNX and OpenVINO, engines with one interface, and a predictor for whole cases."""

from .engines import ENGINES, Engine, OnnxRuntimeEngine, OpenVinoEngine, open_engine
from .parity import parity, parity_summary
from .predictor import Predictor

__all__ = [
    "ENGINES",
    "Engine",
    "OnnxRuntimeEngine",
    "OpenVinoEngine",
    "Predictor",
    "open_engine",
    "parity",
    "parity_summary",
]
