"""FastFlow ablations that can be reproduced: variants, runs, records, tables.

A variant is a value, a run is a function of it, a record is all that remains, and every
table is a query over records.
"""

__version__ = "0.1.0"
