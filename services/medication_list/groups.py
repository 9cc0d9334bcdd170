"""The consumer groups of processors: one for each version of the fold, and for each generation named by a setting."""


def group_of_release(fold_version: int) -> str:
    """Those of this version of the fold, which feed whichever generation is theirs."""
    return f"medication-list.v{fold_version}"


def group_of_generation(generation: str) -> str:
    """Those that were told to feed this generation and no other."""
    return f"medication-list.{generation}"
