"""Archives that others wrote: checkpoints of a library, one a step, read where they lie.

archive.py          what all of them have in common: begin here to add one
tree_archive.py     of those, what lies in a folder, a tar or a zip file alike
checkpoint.py       one step, as its files have it
roles.py            which of its tensors are trained, frozen, tied, buffers
identity.py         what stands for an id that nothing gives
step_names.py       numbers in the names of files and folders
optimizer_state.py  the state dict of an optimizer, by_shapes.py where the order of tensors is lost
model_files.py      weights in one file or in several, or of an adapter
numbered_files.py   a folder of safetensors files
hf/                 folders of weights: the Trainer's, accelerate's, revisions
torch_saved/        files of torch.save
dcp/                torch.distributed.checkpoint
deepspeed/          DeepSpeed's ZeRO
"""
