"""The medication list: folds the log of medication events into one view per patient, and answers who may read it."""
