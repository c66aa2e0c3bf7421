"""The papers' findings, measured again by trajcheck on real trainings: see README.md."""
