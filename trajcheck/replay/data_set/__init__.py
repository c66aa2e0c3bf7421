"""The objective file's data set as a sample, and how its batches weigh."""
