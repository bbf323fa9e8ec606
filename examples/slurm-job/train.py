"""A job that stands for a training: it says where its data and models lie, and counts its epochs."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--data", type=Path, default=Path("/data"))
arguments = parser.parse_args()

print(f"models: {os.environ['HF_HOME']}; data: {sorted(path.name for path in arguments.data.glob('*'))}")
for epoch in tqdm(range(arguments.epochs), disable=None):
    print(f"epoch {epoch + 1} of {arguments.epochs}")
