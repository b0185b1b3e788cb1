"""From finished records to intervals, tables, figures and the report."""
