"""The topics as declared in schemas/topics.yaml: read them, create them, compare a cluster with them."""
