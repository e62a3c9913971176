"""From nothing to a beam spot over the runs: the same as quickstart.ipynb, as a script."""

from pathlib import Path

from pipeline.experiments.toy_generator import generate
from pipeline.tier0 import Tier0

if __name__ == "__main__":  # worker processes import this file again
    truth = generate(Path("quickstart/data"), runs=range(101, 106))
    with Tier0({"experiment": {"name": "toy_collider"}, "storage": {"area": "quickstart/area"}}) as tier0:
        print(f"Dask dashboard: {tier0.dashboard}")
        print(tier0.run(*truth.files))
        print("drawn to", tier0.conditions.plot("beamspot", "x", "y", path=Path("quickstart/beamspot.png")))
