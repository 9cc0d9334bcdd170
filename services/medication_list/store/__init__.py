"""The view's store: state, offset, outcomes and effects of a partition in one step, in Redis or in memory."""
