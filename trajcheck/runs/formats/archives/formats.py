"""The formats of archives, in the order in which a place is held against them."""

from __future__ import annotations

from trajcheck.runs.formats.archives.archive import Archive
from trajcheck.runs.formats.archives.dcp.run import DistributedCheckpoints
from trajcheck.runs.formats.archives.deepspeed.run import DeepSpeedCheckpoints
from trajcheck.runs.formats.archives.hf.accelerated import AcceleratedStates
from trajcheck.runs.formats.archives.hf.hub_cache import HubCache
from trajcheck.runs.formats.archives.hf.revisions import Revisions
from trajcheck.runs.formats.archives.hf.trainer import TrainerCheckpoints
from trajcheck.runs.formats.archives.numbered_files import NumberedFiles
from trajcheck.runs.formats.archives.torch_saved.run import TorchFiles

#: A row a format; the first that recognises a place has it.
ARCHIVES: tuple[type[Archive], ...] = (
    DistributedCheckpoints,
    DeepSpeedCheckpoints,
    TrainerCheckpoints,
    AcceleratedStates,
    HubCache,
    Revisions,
    NumberedFiles,
    TorchFiles,
)
