"""Deployment: export to ONNX and OpenVINO, engines behind one interface, and the predictor of whole cases."""

from .engines import ENGINES, Engine, OnnxRuntimeEngine, OpenVinoEngine, PyTorchEngine, open_engine
from .parity import one_box, parity
from .predict import Predictor

__all__ = ["ENGINES", "Engine", "OnnxRuntimeEngine", "OpenVinoEngine", "Predictor", "PyTorchEngine", "one_box", "open_engine", "parity"]
