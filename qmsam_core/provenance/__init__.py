"""Provenance of results: hashes, environment, public weights. Every layer may import from here."""
