"""Caption many images to a file. A killed run can be resumed, and an image that crashes the captioning process becomes an error row."""
