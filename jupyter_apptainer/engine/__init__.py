"""The boundary to the apptainer/singularity binary. Nothing else in the package starts it. Standard library only."""
