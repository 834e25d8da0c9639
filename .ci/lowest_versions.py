"""Print a pip constraint for each dependency in pyproject.toml: the lowest allowed version."""

import tomllib
from pathlib import Path

settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
extras = settings["project"]["optional-dependencies"]
groups = extras | {"test": settings["dependency-groups"]["test"], "cpu": [], "cuda": []}  # builds of torch
requirements = settings["project"]["dependencies"] + [line for lines in groups.values() for line in lines]
for requirement in dict.fromkeys(requirements):
    if not requirement.startswith("cifar100["):
        print(requirement.split(",")[0].replace(">=", "=="))
