"""A recorded run: its steps from headers alone, what they have in common, reference points in it."""
