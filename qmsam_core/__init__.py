"""Quantised, promptable medical segmentation: the library behind the numbered notebooks of this study."""

import sys
import warnings

__version__ = "0.1.0"

# OpenVINO and NNCF report their use over the internet unless this package is absent.
# They fork a process for it at every conversion.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# jsonschema is imported by nbformat and MONAI. It otherwise builds dozens of parsers of web addresses.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# Brevitas warns of it when it is imported. This study does not use it.
warnings.filterwarnings("ignore", message="fast_hadamard_transform package not found", category=UserWarning)
