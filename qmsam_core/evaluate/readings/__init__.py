"""Sentences that say what a run's tables and figures show, made from their numbers (`NotebookRun.reads`)."""
