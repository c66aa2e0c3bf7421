"""`trajcheck batch`: an archive of runs, analyzed night after night; what is new or has changed, and nothing else."""
