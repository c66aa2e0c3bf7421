"""f(x; z) at any x on any recorded sample: from a user's file, or from the exported program."""
