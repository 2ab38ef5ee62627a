"""Deployment: export to ONNX and OpenVINO, engines behind one interface, and the predictor of whole cases."""

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
