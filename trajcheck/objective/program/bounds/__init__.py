"""What a call of a program takes at most, told from the shapes of its arguments before it is made."""
