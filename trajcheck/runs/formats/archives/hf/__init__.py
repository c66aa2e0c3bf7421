"""What transformers, accelerate, PEFT and huggingface_hub leave: folders of weights, one a step.

folders.py        a folder a step, whoever named them: steps, weights, optimizer
trainer_state.py  trainer_state.json: the step, and the log of rates and losses
trainer.py        the Trainer's checkpoint-N
accelerated.py    accelerate's save_state
revisions.py      a folder a revision
hub_cache.py      the folder in which huggingface_hub keeps a repository
"""
