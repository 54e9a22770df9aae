"""``weir features``: Feast, the data set and offline generation on the command line."""
