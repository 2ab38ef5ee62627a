"""Quantised, promptable medical segmentation: the library behind the numbered notebooks of this study."""

__version__ = "0.1.0"
