"""Where results come from: hashes of files and code, the environment, and the public weights. Every layer may import from here."""
