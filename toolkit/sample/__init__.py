"""The shipped sample: a few freely licensed photographs with five reference captions each (captions.json, LICENCES.md)."""
