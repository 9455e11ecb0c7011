"""What people see of a run: metrics over time, tables and images."""
