"""One line for training frameworks: each module imports its framework, and this one imports none.

trajcheck.integrations.hf         transformers.Trainer     pip install 'trajcheck[hf]'
trajcheck.integrations.lightning  lightning.pytorch        pip install 'trajcheck[lightning]'
"""
