"""Profile a caption by stage and by operator."""
