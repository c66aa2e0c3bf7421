"""What a report shows of itself where it is the value of a cell."""
