"""The choices, one file a stage, in the order in which a figure is made."""
