"""Python environments: requirements.txt, environment.yml, pyproject.toml, and folders of them, as definition files with ipykernel."""
