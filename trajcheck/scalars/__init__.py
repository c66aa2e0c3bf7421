"""What the heavy work produces, row by row and pair by pair; and what of it is saved beside a report."""
