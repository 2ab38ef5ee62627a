"""Deployment: export to ONNX and OpenVINO, engines behind one interface, and the predictor of whole cases."""

from .engines import ENGINES, Engine, OnnxRuntimeEngine, OpenVinoEngine, PyTorchEngine, open_engine
from .arms import ARMS, PAPER_ARMS, Arm, one_box
from .parity import parity, parity_summary
from .predictor import Predictor

__all__ = [
    "ARMS",
    "ENGINES",
    "PAPER_ARMS",
    "Arm",
    "Engine",
    "OnnxRuntimeEngine",
    "OpenVinoEngine",
    "Predictor",
    "PyTorchEngine",
    "one_box",
    "open_engine",
    "parity",
    "parity_summary",
]
