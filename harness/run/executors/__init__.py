"""Where trainings are run, one file a way; each keeps to ``contract.py``."""
