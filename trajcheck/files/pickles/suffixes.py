"""The names of files of torch.save."""

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
