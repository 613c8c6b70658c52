"""What pages are made of: parts that escape every name, tables, figures and pictures."""
