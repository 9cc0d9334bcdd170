"""What readers are shown: the list now and earlier, its history, outcomes, and one prescription, over HTTP."""
