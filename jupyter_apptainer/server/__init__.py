"""What a Jupyter server gets from us besides the provisioner. Thin: it decides nothing."""
