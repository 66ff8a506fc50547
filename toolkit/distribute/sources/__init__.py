"""List the images of inputs: folders and files, tar files, Parquet files and captions files."""
