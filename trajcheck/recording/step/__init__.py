"""What is seen of one step while it is made."""
