"""Caption many pictures into a file: a run that may be killed, resumed, and survive a picture that kills its process."""
