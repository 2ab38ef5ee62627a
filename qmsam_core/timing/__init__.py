"""Measure time: interleaved runs, the arms of Tables 5 and 6, and the cases and pipelines of Table 8."""
