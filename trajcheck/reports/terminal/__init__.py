"""What a finished report says on the terminal."""
