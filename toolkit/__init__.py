"""What a person types: commands, benchmark, report."""
