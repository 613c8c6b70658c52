"""What methods with a memory bank share."""
