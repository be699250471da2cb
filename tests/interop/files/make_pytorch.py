"""Writes small files with PyTorch's own torch.save: `python make_pytorch.py`, with torch 2 and numpy.

Each content is written in both formats. `test_pytorch_files.py` holds the same values.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
LINE = torch.arange(40.0)
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]

TENSORS = OrderedDict(
    {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "part": LINE[3:7],
        "steps": LINE[2:38:5],
        "whole": LINE,
        "scalar": torch.tensor(7),
        "channels_last": torch.arange(2.0 * 3 * 5 * 7).reshape(2, 5, 7, 3).permute(0, 3, 1, 2),
        "parameter": torch.nn.Parameter(torch.tensor([2.0, -3.0])),
        "expanded": torch.tensor([1.5]).expand(3, 2),
        **{f"dtypes.{name}": torch.tensor([0, 1, 100], dtype=getattr(torch, name)) for name in DTYPES},
    }
)
# As StudioGAN writes a discriminator after an evaluation, from a data-parallel network.
STUDIOGAN = {
    "state_dict": OrderedDict({f"module.{name}": tensor for name, tensor in TENSORS.items()}),
    "optimizer": {
        "state": {0: {"step": 5, "exp_avg": torch.ones(3)}},
        "param_groups": [{"lr": 2e-4, "betas": (0.5, 0.999), "params": [0]}],
    },
    "seed": 3,
    "run_name": "CIFAR10-SAGAN",
    "aa_p": None,
    "best_step": np.int64(4000),
    "best_fid": np.float64(12.5),
    "dtype": np.dtype("float32"),
    "best_fid_checkpoint_path": "./checkpoints",
}

for name, content in {
    "tensors": TENSORS,
    "studiogan": STUDIOGAN,
    "norm": {"model": torch.nn.BatchNorm1d(3).state_dict()},
}.items():
    torch.save(content, HERE / f"{name}-zip.pth")
    torch.save(content, HERE / f"{name}-sequence.pth", _use_new_zipfile_serialization=False)
torch.save(STUDIOGAN, HERE / "studiogan-protocol4.pth", pickle_protocol=4)

torch.serialization.set_crc32_options(False)
torch.save({"a": torch.tensor([1.0, 2.0])}, HERE / "unchecked-zip.pth")
