"""Images, labels, masks."""
