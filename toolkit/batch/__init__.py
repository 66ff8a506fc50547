"""Caption many images into a file: a run that may be killed, resumed, and survive an image that kills its process."""
