"""In which of two precisions to replay, and the second beside the first: what rounding there is."""
