"""The processor: workers that follow the log and feed the view, and what they report."""
