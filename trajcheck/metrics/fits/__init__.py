"""Constants that no single row holds: envelopes over all rows of a run, and what they are worth. Pure numpy."""
