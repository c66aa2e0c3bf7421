"""What follows each operation of torch while an objective is evaluated."""
