"""Which steps are recorded, and how much time that may take."""
